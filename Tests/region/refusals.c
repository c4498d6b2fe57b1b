/* SPDX-License-Identifier: Apache-2.0
 * What a region's file may not be: another user's, open to many, cut, damaged, of another version, no file at all.
 * And that of many processes which create one at once, one does. */
#define _GNU_SOURCE
#include "region.h"

enum { BYTES = 1 << 17, PROCESSES = 16 };

static const char *name;
static agr_region_config config;

static agr_status open_it(void) {
  agr_region *region;
  const agr_status status = agr_region_open(name, 0, &config, &region, &error);
  CHECK((region != NULL) == (status == AGR_OK));
  agr_region_close(region);
  return status;
}

static agr_status open_again(const agr_region_config *how, uint64_t bytes) {
  agr_region *region;
  const agr_status status = agr_region_open(name, bytes, how, &region, &error);
  agr_region_close(region);
  return status;
}

/* A good one, for a change that makes it bad. */
static int fresh(void) {
  agr_region_unlink(name, NULL);
  agr_region_close(open_region(name, BYTES));
  const int fd = open(region_path(name), O_RDWR | O_CLOEXEC);
  CHECK(fd >= 0);
  return fd;
}

static void arguments(void) {
  agr_region *region;
  char longest[66];
  memset(longest, 'n', sizeof longest);
  longest[64] = 0;
  const char *bad[] = {"", ".a", "a/b", "a b", "\xc3\xa4", "..", longest};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    CHECK_REFUSED(agr_region_open(bad[i], 0, NULL, &region, &error), AGR_ERR_ARGUMENT, "name");
  }
  longest[63] = 0;
  CHECK(agr_region_open(longest, 0, NULL, &region, &error) == AGR_OK);
  agr_region_close(region);
  CHECK(agr_region_unlink(longest, NULL) == AGR_OK);
  CHECK_REFUSED(agr_region_open(name, 4096, NULL, &region, &error), AGR_ERR_ARGUMENT, "bytes");
  CHECK_REFUSED(agr_region_open(name, (UINT64_C(1) << 40) + 1, NULL, &region, &error),
                AGR_ERR_ARGUMENT, "bytes");
  const uint32_t modes[] = {0, 0400, 0700, 0777, 01600, 0607};
  for (size_t i = 0; i < sizeof modes / sizeof *modes; ++i) {
    agr_region_config how = config;
    how.mode = modes[i];
    CHECK_REFUSED(agr_region_open(name, 0, &how, &region, &error), AGR_ERR_ARGUMENT, "mode");
  }
  /* None of them left anything behind. */
  CHECK(access(region_path(name), F_OK) != 0 && errno == ENOENT);
}

static void disposition(void) {
  agr_region_config how = config;
  how.disposition = AGR_REGION_OPEN;
  CHECK_REFUSED(open_again(&how, 0), AGR_ERR_SYSTEM, "name");
  CHECK_EQUAL(error.system_errno, ENOENT, "errno");
  how.disposition = AGR_REGION_CREATE;
  CHECK(open_again(&how, BYTES) == AGR_OK);
  CHECK_REFUSED(open_again(&how, BYTES), AGR_ERR_SYSTEM, "name");
  CHECK_EQUAL(error.system_errno, EEXIST, "errno");
  how.disposition = AGR_REGION_OPEN;
  CHECK(open_again(&how, BYTES) == AGR_OK);
  CHECK(open_again(&how, BYTES - 1) == AGR_OK);
  CHECK_REFUSED(open_again(&how, BYTES + 1), AGR_ERR_ARGUMENT, "bytes");
}

static void owners_and_modes(void) {
  const int fd = fresh();
  struct stat status;
  CHECK(fstat(fd, &status) == 0 && (status.st_mode & 07777) == 0600 && status.st_size == BYTES);
  agr_region_config how = config;
  how.owner = (int64_t)geteuid() + 1;
  CHECK_REFUSED(open_again(&how, 0), AGR_ERR_REGION, "name");
  how.owner = (int64_t)geteuid();
  CHECK(open_again(&how, 0) == AGR_OK);
  if (geteuid() == 0) {
    CHECK(fchown(fd, 12345, (gid_t)-1) == 0);
    CHECK_REFUSED(open_it(), AGR_ERR_REGION, "name");
    how.owner = 12345;
    CHECK(open_again(&how, 0) == AGR_OK);
    CHECK(fchown(fd, 0, (gid_t)-1) == 0);
  }
  const mode_t wide[] = {0640, 0660, 0602, 0666, 0604};
  for (size_t i = 0; i < sizeof wide / sizeof *wide; ++i) {
    CHECK(fchmod(fd, wide[i]) == 0);
    CHECK_REFUSED(open_it(), AGR_ERR_REGION, "name");
  }
  agr_region_config open_to_group = config;
  open_to_group.mode = 0660;
  CHECK(fchmod(fd, 0660) == 0);
  CHECK(open_again(&open_to_group, 0) == AGR_OK);
  close(fd);
  /* The mask of the process does not narrow what was asked for. */
  agr_region_unlink(name, NULL);
  umask(0777);
  CHECK(open_again(&open_to_group, 0) == AGR_OK);
  umask(022);
  CHECK(stat(region_path(name), &status) == 0 && (status.st_mode & 07777) == 0660);
  agr_region_unlink(name, NULL);
}

static void sizes(void) {
  const off_t bad[] = {0, 1, 8, 4095, 4096, 8192, BYTES - 4096, BYTES - 1, BYTES + 1, 2 * BYTES};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    const int fd = fresh();
    CHECK(ftruncate(fd, bad[i]) == 0);
    CHECK_REFUSED(open_it(), AGR_ERR_REGION, "name");
    close(fd);
  }
  /* A file with holes is filled, so that no write to it can find the memory full. */
  const int fd = fresh();
  CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 4096) == 0);
  CHECK(open_it() == AGR_OK);
  struct stat status;
  CHECK(fstat(fd, &status) == 0 && status.st_blocks * 512 >= BYTES);
  close(fd);
}

/* Every bit of what the header says. */
static void headers(void) {
  const int fd = fresh();
  uint64_t header[6];
  CHECK(pread(fd, header, sizeof header, 0) == sizeof header);
  for (int bit = 0; bit < (int)sizeof header * 8; ++bit) {
    uint64_t changed[6];
    memcpy(changed, header, sizeof header);
    changed[bit / 64] ^= UINT64_C(1) << bit % 64;
    CHECK(pwrite(fd, changed, sizeof changed, 0) == sizeof changed);
    CHECK_EQUAL(open_it(), AGR_ERR_REGION, "a bit of the header");
  }
  CHECK(pwrite(fd, header, sizeof header, 0) == sizeof header);
  CHECK(open_it() == AGR_OK);
  uint64_t version = header[1] + 1;
  CHECK(pwrite(fd, &version, 8, 8) == 8);
  CHECK_REFUSED(open_it(), AGR_ERR_REGION, "name");
  CHECK(strstr(error.message, "version") != NULL);
  const char zeros[BYTES] = {0};
  CHECK(pwrite(fd, zeros, sizeof zeros, 0) == sizeof zeros);
  CHECK_REFUSED(open_it(), AGR_ERR_REGION, "name");
  close(fd);
}

static void no_files(void) {
  const int fd = fresh();
  close(fd);
  char elsewhere[160];
  snprintf(elsewhere, sizeof elsewhere, "%s.elsewhere", region_path(name));
  CHECK(rename(region_path(name), elsewhere) == 0);
  CHECK(symlink(elsewhere, region_path(name)) == 0);
  CHECK_REFUSED(open_it(), AGR_ERR_SYSTEM, "name");
  CHECK_EQUAL(error.system_errno, ELOOP, "errno");
  unlink(region_path(name));
  unlink(elsewhere);
  CHECK(mkfifo(region_path(name), 0600) == 0);
  CHECK_REFUSED(open_it(), AGR_ERR_REGION, "name");
  unlink(region_path(name));
  CHECK(mkdir(region_path(name), 0700) == 0);
  CHECK_REFUSED(open_it(), AGR_ERR_SYSTEM, "name");
  rmdir(region_path(name));
  agr_region *region;
  CHECK_REFUSED(agr_region_open_fd(-1, NULL, &region, &error), AGR_ERR_ARGUMENT, "fd");
  CHECK_REFUSED(agr_region_open_fd(999, NULL, &region, &error), AGR_ERR_SYSTEM, "fd");
  int ends[2];
  CHECK(pipe(ends) == 0);
  CHECK_REFUSED(agr_region_open_fd(ends[0], NULL, &region, &error), AGR_ERR_REGION, "fd");
  close(ends[0]);
  close(ends[1]);
}

/* A gate that opens for all at once: the end of a pipe is closed. */
static void race(void) {
  for (int round = 0; round < 20; ++round) {
    agr_region_unlink(name, NULL);
    int gate[2], told[2];
    char byte;
    CHECK(pipe(gate) == 0 && pipe(told) == 0);
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; ++i) {
      pids[i] = fork();
      if (pids[i]) continue;
      close(gate[1]);
      if (read(gate[0], &byte, 1) != 0) _exit(1);
      agr_region *region;
      agr_limiter *limiter;
      const agr_limiter_config limits = limiter_config(PROCESSES / 2, 0);
      if (agr_region_open(name, BYTES, NULL, &region, NULL) != AGR_OK ||
          agr_limiter_create_in_region_at(region, "l", &limits, 0, &limiter, NULL) != AGR_OK)
        _exit(1);
      const agr_status status = agr_limiter_try_acquire_at(limiter, 1, 0, NULL, NULL);
      if (write(told[1], status == AGR_OK ? "y" : "n", 1) != 1) _exit(1);
      _exit(0);
    }
    close(gate[0]);
    close(gate[1]);
    close(told[1]);
    int admitted = 0;
    while (read(told[0], &byte, 1) == 1) admitted += byte == 'y';
    close(told[0]);
    for (int i = 0; i < PROCESSES; ++i) reap(pids[i]);
    CHECK_EQUAL(admitted, PROCESSES / 2, "admitted by one bucket");
  }
  agr_region_unlink(name, NULL);
}

int main(void) {
  name = region_name("refusals");
  agr_region_config_init(&config, sizeof config);
  arguments();
  disposition();
  owners_and_modes();
  sizes();
  headers();
  no_files();
  race();
  CHECK(access(region_path(name), F_OK) != 0);
  return finish();
}
