/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "file_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RESULT = 1 << 26 };

/* Opened anew by every call, so that the lock keeps threads, processes and children apart alike. */
struct file_store {
  char directory[512];
};

/* What a file begins with; the key and then `tail_length` bytes follow. */
struct record {
  uint64_t magic, key_length, tail_length;
  int64_t expires_ns;             /* the whole record; 0: there is none */
  uint64_t fence, lost_fence;     /* of the run or its result, and of one that was lost */
  uint64_t fingerprint[2], owner[2];
  uint64_t result_bytes;
  int64_t until_ns;               /* the lease of a run */
  int32_t state;
  uint32_t reserved;
};

enum { RUNNING = 10, LOST = 11 }; /* states of runs, beside AGR_KEY_SUCCESS and FAILED */

/* A key while the directory is locked. */
struct file {
  int lock;
  char path[600];
  const agr_store_key *key;
  int64_t now;
  struct record record;
  char *tail; /* tail_length bytes, or NULL */
};

static int64_t wall_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t later(int64_t now, int64_t duration) {
  return duration > AGR_TIME_MAX_NS - now ? AGR_TIME_MAX_NS : now + duration;
}

static agr_status fail(agr_error *error, const char *what) {
  snprintf(error->message, sizeof error->message, "%s: %s", what, strerror(errno));
  return AGR_ERR_STORE;
}

static int write_all(int file, const void *data, size_t length) {
  for (const char *next = data; length > 0;) {
    const ssize_t written = write(file, next, length);
    if (written < 0 && errno != EINTR) return 0;
    if (written > 0) next += written, length -= (size_t)written;
  }
  return 1;
}

static int read_all(int file, void *data, size_t length) {
  for (char *next = data; length > 0;) {
    const ssize_t got = read(file, next, length);
    if (got == 0) return errno = EBADMSG, 0;
    if (got < 0 && errno != EINTR) return 0;
    if (got > 0) next += got, length -= (size_t)got;
  }
  return 1;
}

/* ---- the directory's lock ---- */

static agr_status lock(struct file_store *self, int64_t timeout_ns, int *out, agr_error *error) {
  char path[600];
  snprintf(path, sizeof path, "%s/lock", self->directory);
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return fail(error, "lock");
  const int64_t end = later(wall_ns(), timeout_ns);
  while (flock(file, LOCK_EX | LOCK_NB) != 0) {
    const int other = errno != EWOULDBLOCK && errno != EINTR;
    if (other || wall_ns() >= end) {
      const agr_status status = fail(error, other ? "lock" : "timed out waiting for the lock");
      close(file);
      return status;
    }
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
  }
  *out = file;
  return AGR_OK;
}

/* ---- records ---- */

static uint64_t hash(uint64_t seed, const void *data, size_t length) {
  const unsigned char *bytes = data;
  uint64_t h = seed ^ 0xcbf29ce484222325u;
  for (size_t i = 0; i < length; ++i) h = (h ^ bytes[i]) * 0x100000001b3u; /* FNV-1a */
  return h ^ h >> 29;
}

static const uint64_t MAGIC = 0x31656c6966726761; /* "agrfile1" */

/* The record of a key, zero when there is none. A hash that two keys share would mix them up, so the key
 * is in the file too. */
static agr_status load(struct file_store *self, const char *group, struct file *file,
                       agr_error *error) {
  const agr_store_key *key = file->key;
  uint64_t names[2];
  for (int i = 0; i < 2; ++i) {
    names[i] = hash(hash((uint64_t)i * 0x9e3779b97f4a7c15u, key->space, key->space_length), "", 1);
    names[i] = hash(names[i], key->data, key->length);
  }
  snprintf(file->path, sizeof file->path, "%s/%s-%016llx%016llx", self->directory, group,
           (unsigned long long)names[0], (unsigned long long)names[1]);
  const int from = open(file->path, O_RDONLY | O_CLOEXEC);
  if (from < 0) return errno == ENOENT ? AGR_OK : fail(error, "open");
  agr_status status = AGR_OK;
  struct record *record = &file->record;
  char *rest = NULL;
  if (!read_all(from, record, sizeof *record)) {
    status = fail(error, "read");
  } else if (record->magic != MAGIC || record->key_length != key->length ||
             record->tail_length > MOST_RESULT) {
    errno = EBADMSG;
    status = fail(error, "a record is not whole");
  } else if (!(rest = malloc(key->length + record->tail_length + 1))) {
    status = AGR_ERR_NO_MEMORY;
  } else if (!read_all(from, rest, key->length + record->tail_length)) {
    status = fail(error, "read");
  } else if (memcmp(rest, key->data ? key->data : "", key->length)) {
    errno = EEXIST;
    status = fail(error, "two keys have one hash");
  } else if (record->expires_ns <= file->now) {
    memset(record, 0, sizeof *record); /* as if it were not there */
  } else {
    file->tail = malloc(record->tail_length + 1);
    if (file->tail) memcpy(file->tail, rest + key->length, record->tail_length);
    else status = AGR_ERR_NO_MEMORY;
  }
  free(rest);
  close(from);
  return status;
}

/* Written beside it, and put in its place when it is whole and on the disk. */
static agr_status save(struct file *file, const void *tail, size_t length, agr_error *error) {
  char path[640];
  snprintf(path, sizeof path, "%s.new", file->path);
  file->record.magic = MAGIC;
  file->record.key_length = file->key->length;
  file->record.tail_length = length;
  const int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (to < 0) return fail(error, "create");
  const int good = write_all(to, &file->record, sizeof file->record) &&
                   write_all(to, file->key->data, file->key->length) &&
                   write_all(to, tail, length) && fsync(to) == 0 && rename(path, file->path) == 0;
  const agr_status status = good ? AGR_OK : fail(error, "write");
  close(to);
  if (!good) unlink(path);
  return status;
}

/* Larger than every number before it: the counter is in a file of its own. */
static agr_status next_fence(struct file_store *self, uint64_t *out, agr_error *error) {
  const agr_store_key key = {"fence", 5, NULL, 0};
  struct file file = {.key = &key, .now = wall_ns()};
  agr_status status = load(self, "fence", &file, error);
  free(file.tail);
  if (status != AGR_OK) return status;
  const uint64_t start = (uint64_t)file.now / 1000;
  file.record.fence = file.record.fence < start ? start : file.record.fence + 1;
  file.record.expires_ns = AGR_TIME_MAX_NS;
  *out = file.record.fence;
  return save(&file, NULL, 0, error);
}

static agr_status open_key(struct file_store *self, const char *group, const agr_store_key *key,
                           int64_t timeout_ns, struct file *out, agr_error *error) {
  memset(out, 0, sizeof *out);
  out->key = key;
  const agr_status status = lock(self, timeout_ns, &out->lock, error);
  if (status != AGR_OK) return status;
  out->now = wall_ns();
  const agr_status loaded = load(self, group, out, error);
  if (loaded != AGR_OK) {
    free(out->tail);
    close(out->lock);
  }
  return loaded;
}

static agr_status close_key(struct file *file, agr_status status) {
  free(file->tail);
  close(file->lock);
  return status;
}

/* ---- idempotency ---- */

/* A run whose lease has ended is lost, from that moment on. */
static void notice_loss(struct file *file) {
  struct record *record = &file->record;
  if (record->state == RUNNING && record->until_ns <= file->now) {
    record->state = LOST;
    record->lost_fence = record->fence;
  }
}

static agr_status replay(const struct file *file, const agr_store_sink *sink,
                         agr_store_run_state *out, agr_error *error) {
  const size_t length = (size_t)file->record.tail_length;
  void *room = sink->reserve(sink->context, length);
  if (!room) {
    snprintf(error->message, sizeof error->message, "there is no room for the result");
    return AGR_ERR_NO_MEMORY;
  }
  memcpy(room, file->tail, length);
  out->fence = file->record.fence;
  out->state = file->record.state;
  out->remaining_ns = file->record.expires_ns - file->now;
  return AGR_REPLAY;
}

static agr_status start(struct file_store *self, struct file *file, const agr_store_run *run,
                        agr_store_run_state *out, agr_error *error) {
  struct record *record = &file->record;
  const int is_repeat = record->state == RUNNING;
  if (!is_repeat) {
    if (record->state != LOST) memset(record, 0, sizeof *record);
    const agr_status status = next_fence(self, &record->fence, error);
    if (status != AGR_OK) return status;
    if (!record->fingerprint[0] && !record->fingerprint[1])
      memcpy(record->fingerprint, run->fingerprint, sizeof record->fingerprint);
    memcpy(record->owner, run->owner, sizeof record->owner);
    record->state = RUNNING;
    record->result_bytes = run->result_bytes;
  }
  record->until_ns = later(file->now, run->lease_ns);
  record->expires_ns = later(record->until_ns, run->ttl_ns);
  out->fence = record->fence;
  out->lost_fence = record->lost_fence;
  out->outcome_unknown = record->lost_fence != 0;
  out->remaining_ns = record->until_ns - file->now;
  return save(file, NULL, 0, error);
}

static int differs(const uint64_t *a, const uint64_t *b) {
  return (a[0] || a[1]) && (b[0] || b[1]) && (a[0] != b[0] || a[1] != b[1]);
}

static agr_status file_begin(void *store, const agr_store_run *run, int64_t timeout_ns,
                             const agr_store_sink *sink, agr_store_run_state *out,
                             agr_error *error) {
  struct file file;
  if (run->result_bytes > MOST_RESULT) {
    snprintf(error->field, sizeof error->field, "result_bytes");
    snprintf(error->message, sizeof error->message, "more than 2^26");
    return AGR_ERR_NEVER_FITS;
  }
  agr_status status = open_key(store, "run", &run->key, timeout_ns, &file, error);
  if (status != AGR_OK) return status;
  struct record *record = &file.record;
  notice_loss(&file);
  const int is_owner = record->owner[0] == run->owner[0] && record->owner[1] == run->owner[1];
  if (record->state && differs(record->fingerprint, run->fingerprint)) {
    status = AGR_MISMATCH;
  } else if (record->state == AGR_KEY_SUCCESS || record->state == AGR_KEY_FAILED) {
    status = replay(&file, sink, out, error);
  } else if (record->state == RUNNING && !is_owner) {
    out->fence = record->fence;
    out->remaining_ns = record->until_ns - file.now;
    status = AGR_IN_PROGRESS;
  } else {
    status = start(store, &file, run, out, error);
  }
  return close_key(&file, status);
}

static agr_status file_read(void *store, const agr_store_key *key, int64_t timeout_ns,
                            const agr_store_sink *sink, agr_store_run_state *out,
                            agr_error *error) {
  struct file file;
  agr_status status = open_key(store, "run", key, timeout_ns, &file, error);
  if (status != AGR_OK) return status;
  notice_loss(&file);
  if (file.record.state == AGR_KEY_SUCCESS || file.record.state == AGR_KEY_FAILED) {
    status = replay(&file, sink, out, error);
  } else if (file.record.state == RUNNING) {
    out->fence = file.record.fence;
    out->remaining_ns = file.record.until_ns - file.now;
    status = AGR_IN_PROGRESS;
  } else {
    out->lost_fence = file.record.lost_fence;
    out->outcome_unknown = file.record.lost_fence != 0;
    status = AGR_NOT_FOUND;
  }
  return close_key(&file, status);
}

static int is_run(const struct file *file, uint64_t fence) {
  return file->record.state == RUNNING && file->record.fence == fence &&
         file->record.until_ns > file->now;
}

static agr_status file_renew(void *store, const agr_store_key *key, uint64_t fence,
                             int64_t lease_ns, int64_t ttl_ns, int64_t timeout_ns,
                             agr_error *error) {
  struct file file;
  agr_status status = open_key(store, "run", key, timeout_ns, &file, error);
  if (status != AGR_OK) return status;
  if (!is_run(&file, fence)) return close_key(&file, AGR_STALE);
  file.record.until_ns = later(file.now, lease_ns);
  file.record.expires_ns = later(file.record.until_ns, ttl_ns);
  return close_key(&file, save(&file, NULL, 0, error));
}

static agr_status file_complete(void *store, const agr_store_key *key, uint64_t fence,
                                int32_t state, const void *data, size_t length, int64_t ttl_ns,
                                int64_t timeout_ns, agr_error *error) {
  struct file file;
  agr_status status = open_key(store, "run", key, timeout_ns, &file, error);
  if (status != AGR_OK) return status;
  struct record *record = &file.record;
  const int is_done = record->state == AGR_KEY_SUCCESS || record->state == AGR_KEY_FAILED;
  if (is_done && record->fence == fence) return close_key(&file, AGR_OK);
  if (!is_run(&file, fence)) return close_key(&file, AGR_STALE);
  if (length > record->result_bytes) {
    snprintf(error->field, sizeof error->field, "length");
    snprintf(error->message, sizeof error->message, "more than the run began with");
    return close_key(&file, AGR_ERR_NEVER_FITS);
  }
  record->state = state;
  record->lost_fence = 0;
  record->expires_ns = later(file.now, ttl_ns);
  return close_key(&file, save(&file, data, length, error));
}

static agr_status file_give_back(void *store, const agr_store_key *key, uint64_t fence,
                                 uint32_t outcome_unknown, int64_t ttl_ns, int64_t timeout_ns,
                                 agr_error *error) {
  struct file file;
  agr_status status = open_key(store, "run", key, timeout_ns, &file, error);
  if (status != AGR_OK) return status;
  if (!is_run(&file, fence)) return close_key(&file, AGR_STALE);
  if (outcome_unknown) file.record.lost_fence = fence;
  if (!file.record.lost_fence) {
    return close_key(&file, unlink(file.path) == 0 ? AGR_OK : fail(error, "unlink"));
  }
  file.record.state = LOST;
  file.record.expires_ns = later(file.now, ttl_ns);
  return close_key(&file, save(&file, NULL, 0, error));
}

/* ---- leases ---- */

struct holder {
  uint64_t owner[2], fence;
  int64_t until_ns;
};

/* The holders whose time has not ended, and the place of the owner among them, or -1. */
static long holders_of(struct file *file, const agr_store_lease *lease, long *out_count) {
  struct holder *all = (struct holder *)(void *)file->tail;
  const long count = file->tail ? (long)(file->record.tail_length / sizeof *all) : 0;
  long kept = 0, mine = -1;
  for (long i = 0; i < count; ++i) {
    if (all[i].until_ns <= file->now) continue;
    if (all[i].owner[0] == lease->owner[0] && all[i].owner[1] == lease->owner[1]) mine = kept;
    all[kept++] = all[i];
  }
  *out_count = kept;
  return mine;
}

static agr_status file_acquire(void *store, const agr_store_lease *lease, int64_t timeout_ns,
                               uint64_t *out_fence, int64_t *out_retry_after_ns,
                               agr_error *error) {
  struct file file;
  long count;
  agr_status status = open_key(store, "lease", &lease->key, timeout_ns, &file, error);
  if (status != AGR_OK) return status;
  long mine = holders_of(&file, lease, &count);
  struct holder *holders = (struct holder *)(void *)file.tail;
  if (mine < 0 && count >= (long)lease->limit) {
    int64_t next = AGR_TIME_MAX_NS;
    for (long i = 0; i < count; ++i) next = holders[i].until_ns < next ? holders[i].until_ns : next;
    *out_retry_after_ns = next - file.now;
    return close_key(&file, AGR_LIMITED);
  }
  if (mine < 0) {
    char *more = realloc(file.tail, (size_t)(count + 1) * sizeof *holders);
    if (!more) return close_key(&file, AGR_ERR_NO_MEMORY);
    file.tail = more;
    holders = (struct holder *)(void *)more;
    mine = count++;
    memset(&holders[mine], 0, sizeof *holders);
    memcpy(holders[mine].owner, lease->owner, sizeof lease->owner);
    status = next_fence(store, &holders[mine].fence, error);
    if (status != AGR_OK) return close_key(&file, status);
  }
  holders[mine].until_ns = later(file.now, lease->ttl_ns);
  *out_fence = holders[mine].fence;
  file.record.expires_ns = AGR_TIME_MAX_NS;
  return close_key(&file, save(&file, holders, (size_t)count * sizeof *holders, error));
}

/* Extends the owner's lease, or ends it. */
static agr_status change_lease(void *store, const agr_store_lease *lease, int ends,
                               int64_t timeout_ns, agr_error *error) {
  struct file file;
  long count;
  agr_status status = open_key(store, "lease", &lease->key, timeout_ns, &file, error);
  if (status != AGR_OK) return status;
  const long mine = holders_of(&file, lease, &count);
  struct holder *holders = (struct holder *)(void *)file.tail;
  if (mine < 0) return close_key(&file, AGR_STALE);
  if (ends) {
    holders[mine] = holders[--count];
  } else {
    holders[mine].until_ns = later(file.now, lease->ttl_ns);
  }
  return close_key(&file, save(&file, holders, (size_t)count * sizeof *holders, error));
}

static agr_status file_extend(void *store, const agr_store_lease *lease, int64_t timeout_ns,
                              agr_error *error) {
  return change_lease(store, lease, 0, timeout_ns, error);
}

static agr_status file_release(void *store, const agr_store_lease *lease, int64_t timeout_ns,
                               agr_error *error) {
  return change_lease(store, lease, 1, timeout_ns, error);
}

/* ---- the rest ---- */

static agr_status file_ping(void *store, int64_t timeout_ns, agr_error *error) {
  int held;
  const agr_status status = lock(store, timeout_ns, &held, error);
  if (status == AGR_OK) close(held);
  return status;
}

static void file_destroy(void *store) { free(store); }

static const agr_store_api api = {
    .struct_size = sizeof(agr_store_api),
    .name = "file",
    .ping = file_ping,
    .destroy = file_destroy,
    .begin = file_begin,
    .read = file_read,
    .renew = file_renew,
    .complete = file_complete,
    .give_back = file_give_back,
    .acquire = file_acquire,
    .extend = file_extend,
    .release = file_release,
};

static void remove_expired(const char *directory) {
  char path[900];
  DIR *entries = opendir(directory);
  for (struct dirent *entry; entries && (entry = readdir(entries));) {
    struct record record;
    snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    const int is_old = read_all(file, &record, sizeof record) && record.magic == MAGIC &&
                       record.expires_ns <= wall_ns();
    close(file);
    if (is_old) unlink(path);
  }
  if (entries) closedir(entries);
}

agr_status file_store_open(const char *directory, agr_store_driver *out_driver, agr_error *error) {
  struct file_store *self = calloc(1, sizeof *self);
  int held;
  if (!self) return AGR_ERR_NO_MEMORY;
  if (strlen(directory) >= sizeof self->directory) {
    snprintf(error->message, sizeof error->message, "the path is too long");
    free(self);
    return AGR_ERR_ARGUMENT;
  }
  strcpy(self->directory, directory);
  if ((mkdir(directory, 0700) != 0 && errno != EEXIST) ||
      lock(self, 10000000000, &held, error) != AGR_OK) {
    error->system_errno = errno;
    fail(error, directory);
    free(self);
    return AGR_ERR_SYSTEM;
  }
  remove_expired(directory);
  close(held);
  *out_driver = (agr_store_driver){&api, self};
  return AGR_OK;
}
