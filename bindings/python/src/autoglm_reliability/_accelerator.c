/* SPDX-License-Identifier: Apache-2.0
 * The accelerator of the Python package: the hot paths, without ctypes. Optional.
 *
 * Each of them does the plain case of a method, and leaves everything else (other arguments, a clock of one's
 * own, a failure, a wait) to the Python function in whose place it stands, so that there is one place for what a
 * method means. The functions of the library are those which _ffi has loaded: this file is linked to none.
 *
 * The interpreter's lock is held throughout, but while the caller's own function runs: that is what makes reading
 * the pointer of a handle and calling with it one step for every other thread, closing included. State is of the
 * process, so only the first interpreter of a process is served; in others the import fails, and ctypes is used. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <structmember.h>

#include <math.h>

#include <autoglm_reliability.h>

/* Of what this file and the Python files expect of each other, so that one that was built from older sources is
 * not used: to be raised here and in _accelerate.py when that changes. */
#define INTERFACE 3

/* ---- what Python hands over ---- */

static struct {
  int64_t (*now_ns)(void);
  agr_status (*limiter_try_acquire)(agr_limiter *, int64_t, int64_t *, agr_error *);
  agr_status (*keyed_limiter_try_acquire)(agr_keyed_limiter *, const void *, size_t, int64_t, int64_t *,
                                          agr_error *);
  agr_status (*limiter_reserve)(agr_limiter *, int64_t, int64_t, agr_reservation *, int64_t *, agr_error *);
  agr_status (*limiter_settle)(agr_limiter *, uint64_t, int64_t, agr_error *);
  agr_status (*keyed_limiter_reserve)(agr_keyed_limiter *, const void *, size_t, int64_t, int64_t, agr_reservation *,
                                      int64_t *, agr_error *);
  agr_status (*keyed_limiter_settle)(agr_keyed_limiter *, uint64_t, int64_t, agr_error *);
  agr_status (*keyed_limiter_available)(agr_keyed_limiter *, const void *, size_t, int64_t *, agr_error *);
  agr_status (*breaker_acquire_at)(agr_breaker *, int64_t, uint64_t *, int64_t *, agr_error *);
  agr_status (*breaker_report_at)(agr_breaker *, uint64_t, int32_t, int64_t, int64_t, agr_error *);
  void (*outcome_init)(agr_outcome *, uint32_t);
  agr_status (*call_begin)(agr_policy *, const agr_request *, agr_call **, agr_step *, agr_error *);
  agr_status (*call_advance)(agr_call *, const agr_outcome *, agr_step *, agr_error *);
  void (*call_destroy)(agr_call *);
} agr;

static const struct {
  const char *name;
  void *place;
} functions[] = {
    {"agr_now_ns", &agr.now_ns},
    {"agr_limiter_try_acquire", &agr.limiter_try_acquire},
    {"agr_keyed_limiter_try_acquire", &agr.keyed_limiter_try_acquire},
    {"agr_limiter_reserve", &agr.limiter_reserve},
    {"agr_limiter_settle", &agr.limiter_settle},
    {"agr_keyed_limiter_reserve", &agr.keyed_limiter_reserve},
    {"agr_keyed_limiter_settle", &agr.keyed_limiter_settle},
    {"agr_keyed_limiter_available", &agr.keyed_limiter_available},
    {"agr_breaker_acquire_at", &agr.breaker_acquire_at},
    {"agr_breaker_report_at", &agr.breaker_report_at},
    {"agr_outcome_init", &agr.outcome_init},
    {"agr_call_begin", &agr.call_begin},
    {"agr_call_advance", &agr.call_advance},
    {"agr_call_destroy", &agr.call_destroy},
};

enum { ADDRESS, RAISE, LIMIT, RESERVE, REFUSE, PERMIT, LEAVE, ATTEMPT, STEP, SET, RESET, RESUME, HOOKS };
static const char *const hook_names[HOOKS] = {"address", "raise_error", "limited", "reservation", "refuse", "Permit",
                                              "leave",   "Attempt",     "step",    "set",         "reset",  "resume"};
static PyObject *hooks[HOOKS];

static PyTypeObject *native_type;
static agr_outcome success;

static PyObject *hook(int which) {
  if (hooks[which] == NULL)
    PyErr_Format(PyExc_RuntimeError, "the accelerator has no %s", hook_names[which]);
  return hooks[which];
}

/* ---- an object with a native handle ---- */

typedef struct {
  PyObject_HEAD
  PyObject *keep;    /* the ctypes object that the cell is in */
  void *const *cell; /* the handle; NULL in it when it is closed; NULL itself before there is one */
  int quick;         /* whether the plain case can be that of this object at all */
} Native;

static int is_quick(PyObject *self) {
  return ((Native *)self)->quick;
}

static void *handle(PyObject *self) {
  return *((Native *)self)->cell;
}

static PyObject *native_attach(PyObject *self, PyObject *args) {
  Native *native = (Native *)self;
  PyObject *keep;
  int quick;
  if (!PyArg_ParseTuple(args, "Op:_attach", &keep, &quick) || hook(ADDRESS) == NULL)
    return NULL;
  PyObject *number = PyObject_CallFunctionObjArgs(hooks[ADDRESS], keep, NULL);
  void *address = number == NULL ? NULL : PyLong_AsVoidPtr(number);
  Py_XDECREF(number);
  if (address == NULL)
    return NULL;
  PyObject *before = native->keep;
  Py_INCREF(keep);
  native->keep = keep;
  native->cell = address;
  native->quick = quick;
  Py_XDECREF(before);
  Py_RETURN_NONE;
}

static void release(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

static void native_dealloc(PyObject *self) {
  Py_XDECREF(((Native *)self)->keep);
  release(self);
}

static PyMethodDef native_methods[] = {{"_attach", native_attach, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot native_slots[] = {
    {Py_tp_dealloc, native_dealloc}, {Py_tp_methods, native_methods}, {0, NULL}};
static PyType_Spec native_spec = {"autoglm_reliability._accelerator.Native", sizeof(Native), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, native_slots};

/* Raises what a negative status means. */
static PyObject *failed(PyObject *self, agr_status status, const agr_error *error) {
  if (handle(self) == NULL) {
    PyObject *none = PyObject_CallMethod(self, "_require_open", NULL);
    if (none == NULL)
      return NULL;
    Py_DECREF(none);
  }
  if (hook(RAISE) == NULL)
    return NULL;
  PyObject *none = PyObject_CallFunction(hooks[RAISE], "iy#", status, (const char *)error, (Py_ssize_t)sizeof *error);
  if (none != NULL) {
    Py_DECREF(none);
    PyErr_SetString(PyExc_SystemError, "an error was not raised");
  }
  return NULL;
}

/* ---- methods, each with the Python function that does the whole of it ---- */

enum { LIMITER, KEYED, LIMITER_TAKE, KEYED_TAKE, KEYED_RESERVE, KEYED_SETTLE, KEYED_AVAILABLE, ACQUIRE, GUARD, EXECUTE, RUN, START, METHODS };
static PyObject *whole[METHODS];

static PyObject *do_all(int which, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
  PyObject *keywords = NULL, *result = NULL;
  PyObject *arguments = PyTuple_New(1 + count);
  if (arguments == NULL)
    return NULL;
  Py_INCREF(self);
  PyTuple_SetItem(arguments, 0, self);
  for (Py_ssize_t index = 0; index < count; index++) {
    Py_INCREF(args[index]);
    PyTuple_SetItem(arguments, 1 + index, args[index]);
  }
  if (named > 0 && (keywords = PyDict_New()) == NULL)
    goto done;
  for (Py_ssize_t index = 0; index < named; index++)
    if (PyDict_SetItem(keywords, PyTuple_GetItem(names, index), args[count + index]) < 0)
      goto done;
  result = PyObject_Call(whole[which], arguments, keywords);
done:
  Py_XDECREF(keywords);
  Py_DECREF(arguments);
  return result;
}

/* Whether an argument is a plain int of 64 bits. */
static int plain_integer(PyObject *value, int64_t *out) {
  int overflow = 0;
  if (!PyLong_CheckExact(value))
    return 0;
  *out = PyLong_AsLongLongAndOverflow(value, &overflow);
  return !overflow;
}

static PyObject *limiter_try_acquire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  int64_t tokens = 1;
  if (!is_quick(self) || names != NULL || count > 1 || (count == 1 && !plain_integer(args[0], &tokens)))
    return do_all(LIMITER, self, args, count, names);
  agr_error error;
  agr_status status = agr.limiter_try_acquire(handle(self), tokens, NULL, &error);
  return status < 0 ? failed(self, status, &error) : PyBool_FromLong(status == AGR_OK);
}

/* The bytes of a key that is a str or bytes; NULL: it is something else. */
static const char *plain_key(PyObject *value, Py_ssize_t *length) {
  const char *key = NULL;
  if (PyUnicode_CheckExact(value)) {
    if ((key = PyUnicode_AsUTF8AndSize(value, length)) == NULL)
      PyErr_Clear(); /* and again in Python, with the error which that gives */
  } else if (PyBytes_CheckExact(value)) {
    key = PyBytes_AsString(value);
    *length = PyBytes_Size(value);
  }
  return key;
}

static PyObject *keyed_try_acquire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  int64_t tokens = 1;
  const char *key = NULL;
  Py_ssize_t length = 0;
  if (is_quick(self) && names == NULL && (count == 1 || (count == 2 && plain_integer(args[1], &tokens))))
    key = plain_key(args[0], &length);
  if (key == NULL)
    return do_all(KEYED, self, args, count, names);
  agr_error error;
  agr_status status = agr.keyed_limiter_try_acquire(handle(self), key, (size_t)length, tokens, NULL, &error);
  return status < 0 ? failed(self, status, &error) : PyBool_FromLong(status == AGR_OK);
}

static PyObject *reserved(PyObject *self, const agr_reservation *reservation) {
  if (hook(RESERVE) == NULL)
    return NULL;
  return PyObject_CallFunction(hooks[RESERVE], "OKLL", self, (unsigned long long)reservation->permit,
                               (long long)reservation->tokens, (long long)reservation->wait_ns);
}

static PyObject *limited(int64_t wait) {
  return hook(LIMIT) == NULL ? NULL : PyObject_CallFunction(hooks[LIMIT], "L", (long long)wait);
}

/* What is left to do for tokens that are reserved: nothing, when they are there. Their real cost is what was
 * reserved, as it is when nobody says it. */
static PyObject *taken(PyObject *self, agr_status status, const agr_reservation *reservation, int64_t wait,
                       agr_error *error, int keyed) {
  if (status == AGR_OK && reservation->wait_ns > 0)
    return reserved(self, reservation);
  if (status == AGR_OK)
    status = keyed ? agr.keyed_limiter_settle(handle(self), reservation->permit, -1, error)
                   : agr.limiter_settle(handle(self), reservation->permit, -1, error);
  if (status < 0)
    return failed(self, status, error);
  if (status == AGR_LIMITED)
    return limited(wait);
  Py_RETURN_NONE;
}

/* key, tokens, timeout, the last of them without end. */
static int plain_take(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names, int64_t *tokens) {
  return is_quick(self) && count == 3 && names == NULL && PyTuple_CheckExact(args[0]) &&
         plain_integer(args[1], tokens) && PyFloat_CheckExact(args[2]) && PyFloat_AsDouble(args[2]) == INFINITY;
}

static PyObject *limiter_take(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  int64_t tokens, wait = 0;
  if (!plain_take(self, args, count, names, &tokens))
    return do_all(LIMITER_TAKE, self, args, count, names);
  agr_reservation reservation;
  agr_error error;
  agr_status status = agr.limiter_reserve(handle(self), tokens, AGR_FOREVER, &reservation, &wait, &error);
  return taken(self, status, &reservation, wait, &error, 0);
}

static PyObject *keyed_take(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  int64_t tokens, wait = 0;
  PyObject *key = NULL;
  if (plain_take(self, args, count, names, &tokens) && PyTuple_Size(args[0]) == 2)
    key = PyTuple_GetItem(args[0], 0);
  if (key == NULL || !PyBytes_CheckExact(key))
    return do_all(KEYED_TAKE, self, args, count, names);
  agr_reservation reservation;
  agr_error error;
  agr_status status = agr.keyed_limiter_reserve(handle(self), PyBytes_AsString(key), (size_t)PyBytes_Size(key), tokens,
                                                AGR_FOREVER, &reservation, &wait, &error);
  return taken(self, status, &reservation, wait, &error, 1);
}

/* Whether it is 0, as an int or a float. */
static int is_zero(PyObject *value) {
  int64_t number;
  if (PyFloat_CheckExact(value))
    return PyFloat_AsDouble(value) == 0;
  return plain_integer(value, &number) && number == 0;
}

/* key, tokens, max_wait, the last of them 0: now or not at all. */
static PyObject *keyed_reserve(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  int64_t tokens, wait = 0;
  const char *key = NULL;
  Py_ssize_t length = 0;
  if (is_quick(self) && count == 3 && names == NULL && plain_integer(args[1], &tokens) && is_zero(args[2]))
    key = plain_key(args[0], &length);
  if (key == NULL)
    return do_all(KEYED_RESERVE, self, args, count, names);
  agr_reservation reservation;
  agr_error error;
  agr_status status =
      agr.keyed_limiter_reserve(handle(self), key, (size_t)length, tokens, 0, &reservation, &wait, &error);
  if (status < 0)
    return failed(self, status, &error);
  return status == AGR_LIMITED ? limited(wait) : reserved(self, &reservation);
}

/* permit, cost; as Reservation calls it, and nobody else. */
static PyObject *keyed_settle(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  int64_t cost;
  if (!is_quick(self) || count != 2 || names != NULL || !plain_integer(args[1], &cost))
    return do_all(KEYED_SETTLE, self, args, count, names);
  uint64_t permit = PyLong_AsUnsignedLongLong(args[0]);
  if (permit == UINT64_MAX && PyErr_Occurred() != NULL)
    return NULL;
  agr_error error;
  agr_status status = agr.keyed_limiter_settle(handle(self), permit, cost, &error);
  return status < 0 ? failed(self, status, &error) : PyBool_FromLong(status == AGR_OK);
}

static PyObject *keyed_available(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  int64_t tokens = 0;
  const char *key = NULL;
  Py_ssize_t length = 0;
  if (is_quick(self) && count == 1 && names == NULL)
    key = plain_key(args[0], &length);
  if (key == NULL)
    return do_all(KEYED_AVAILABLE, self, args, count, names);
  agr_error error;
  agr_status status = agr.keyed_limiter_available(handle(self), key, (size_t)length, &tokens, &error);
  return status < 0 ? failed(self, status, &error) : PyLong_FromLongLong(tokens);
}

/* ---- permits ---- */

typedef struct {
  PyObject_HEAD
  PyObject *breaker; /* a Native */
  PyObject *classify;
  int64_t started;
  uint64_t number; /* 0: reported */
} Permit;

static PyObject *make_permit(PyTypeObject *type, PyObject *breaker, uint64_t number, int64_t started,
                             PyObject *classify) {
  Permit *permit = (Permit *)PyType_GenericAlloc(type, 0);
  if (permit == NULL)
    return NULL;
  Py_INCREF(breaker);
  Py_INCREF(classify);
  permit->breaker = breaker;
  permit->classify = classify;
  permit->started = started;
  permit->number = number;
  return (PyObject *)permit;
}

static PyObject *permit_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
  PyObject *breaker, *classify;
  unsigned long long number;
  long long started;
  (void)keywords;
  if (!PyArg_ParseTuple(args, "O!KLO:Permit", native_type, &breaker, &number, &started, &classify))
    return NULL;
  return make_permit(type, breaker, number, started, classify);
}

/* Asks the breaker; returns 1 with a number, or 0 with an exception. */
static int ask(PyObject *breaker, uint64_t *number, int64_t *now) {
  agr_error error;
  int64_t wait = 0;
  *now = agr.now_ns();
  agr_status status = agr.breaker_acquire_at(handle(breaker), *now, number, &wait, &error);
  if (status == AGR_OK)
    return 1;
  if (status < 0) {
    failed(breaker, status, &error);
  } else if (hook(REFUSE) != NULL) {
    Py_XDECREF(PyObject_CallFunction(hooks[REFUSE], "L", (long long)wait));
  }
  return 0;
}

/* Reports, unless the breaker was closed meanwhile; -1 with an exception. */
static int report(PyObject *breaker, uint64_t number, int64_t started, int32_t outcome) {
  if (handle(breaker) == NULL)
    return 0;
  agr_error error;
  int64_t now = agr.now_ns(), took = now > started ? now - started : 0;
  agr_status status = agr.breaker_report_at(handle(breaker), number, outcome, took, now, &error);
  if (status >= 0)
    return 0;
  failed(breaker, status, &error);
  return -1;
}

static PyObject *breaker_acquire(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  uint64_t number;
  int64_t now;
  if (!is_quick(self) || count > 0 || names != NULL)
    return do_all(ACQUIRE, self, args, count, names);
  if (hook(PERMIT) == NULL || !ask(self, &number, &now))
    return NULL;
  PyObject *permit = make_permit((PyTypeObject *)hooks[PERMIT], self, number, now, Py_None);
  if (permit == NULL)
    report(self, number, now, AGR_OUTCOME_NEUTRAL); /* no memory for it; its place comes back */
  return permit;
}

/* breaker, function, arguments, keywords: the call of a decorated function. */
static PyObject *breaker_run(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  uint64_t number;
  int64_t now;
  if (!is_quick(self) || count != 3 || names != NULL || !PyTuple_Check(args[1]) || !PyDict_Check(args[2]))
    return do_all(GUARD, self, args, count, names);
  if (hook(PERMIT) == NULL || hook(LEAVE) == NULL || !ask(self, &number, &now))
    return NULL;
  PyObject *value = PyObject_Call(args[0], args[1], args[2]);
  if (value != NULL) {
    if (report(self, number, now, AGR_OUTCOME_SUCCESS) == 0)
      return value;
    Py_DECREF(value);
    return NULL;
  }
  PyObject *kind, *error, *trace;
  PyErr_Fetch(&kind, &error, &trace);
  PyErr_NormalizeException(&kind, &error, &trace);
  if (trace != NULL)
    PyException_SetTraceback(error, trace);
  PyObject *permit = make_permit((PyTypeObject *)hooks[PERMIT], self, number, now, Py_None);
  if (permit != NULL) {
    value = PyObject_CallFunctionObjArgs(hooks[LEAVE], permit, error, NULL);
    Py_DECREF(permit);
  }
  Py_XDECREF(kind);
  Py_XDECREF(error);
  Py_XDECREF(trace);
  return value;
}

static PyObject *permit_enter(PyObject *self, PyObject *unused) {
  (void)unused;
  Py_INCREF(self);
  return self;
}

static PyObject *permit_exit(PyObject *self, PyObject *const *args, Py_ssize_t count) {
  Permit *permit = (Permit *)self;
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "__exit__ takes the three parts of an exception");
    return NULL;
  }
  if (args[1] != Py_None || permit->breaker == NULL || !is_quick(permit->breaker))
    return PyObject_CallMethod(self, "_leave", "O", args[1]);
  if (permit->number != 0 && handle(permit->breaker) != NULL) {
    uint64_t number = permit->number;
    permit->number = 0;
    if (report(permit->breaker, number, permit->started, AGR_OUTCOME_SUCCESS) < 0)
      return NULL;
  }
  Py_RETURN_NONE;
}

static PyObject *permit_take(PyObject *self, PyObject *unused) {
  uint64_t number = ((Permit *)self)->number;
  (void)unused;
  ((Permit *)self)->number = 0;
  return PyLong_FromUnsignedLongLong(number);
}

static PyObject *permit_put_back(PyObject *self, PyObject *value) {
  uint64_t number = PyLong_AsUnsignedLongLong(value);
  if (PyErr_Occurred() != NULL)
    return NULL;
  ((Permit *)self)->number = number;
  Py_RETURN_NONE;
}

static PyObject *permit_reported(PyObject *self, void *unused) {
  (void)unused;
  return PyBool_FromLong(((Permit *)self)->number == 0);
}

/* One that is dropped. Where it can be done without Python it is, for there may be no stack left for that. */
static void permit_finalize(PyObject *self) {
  Permit *permit = (Permit *)self;
  uint64_t number = permit->number;
  if (number == 0 || permit->breaker == NULL)
    return;
  PyObject *kind, *error, *trace;
  PyErr_Fetch(&kind, &error, &trace);
  if (is_quick(permit->breaker)) {
    permit->number = 0;
    report(permit->breaker, number, permit->started, AGR_OUTCOME_NEUTRAL);
  } else {
    Py_XDECREF(PyObject_CallMethod(self, "_drop", NULL));
  }
  if (PyErr_Occurred() != NULL)
    PyErr_WriteUnraisable(self);
  PyErr_Restore(kind, error, trace);
}

static int permit_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(((Permit *)self)->breaker);
  Py_VISIT(((Permit *)self)->classify);
  return 0;
}

static int permit_clear(PyObject *self) {
  Py_CLEAR(((Permit *)self)->breaker);
  Py_CLEAR(((Permit *)self)->classify);
  return 0;
}

static void permit_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  permit_clear(self);
  release(self);
}

static PyMethodDef permit_methods[] = {
    {"__enter__", permit_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))permit_exit, METH_FASTCALL, NULL},
    {"_take", permit_take, METH_NOARGS, NULL},
    {"_put_back", permit_put_back, METH_O, NULL},
    {NULL, NULL, 0, NULL}};
static PyMemberDef permit_members[] = {{"_breaker", T_OBJECT_EX, offsetof(Permit, breaker), READONLY, NULL},
                                       {"_classify", T_OBJECT, offsetof(Permit, classify), READONLY, NULL},
                                       {"_started", T_LONGLONG, offsetof(Permit, started), READONLY, NULL},
                                       {NULL, 0, 0, 0, NULL}};
static PyGetSetDef permit_properties[] = {{"reported", permit_reported, NULL, NULL, NULL},
                                          {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot permit_slots[] = {{Py_tp_new, permit_new},
                                     {Py_tp_dealloc, permit_dealloc},
                                     {Py_tp_finalize, permit_finalize},
                                     {Py_tp_traverse, permit_traverse},
                                     {Py_tp_clear, permit_clear},
                                     {Py_tp_methods, permit_methods},
                                     {Py_tp_members, permit_members},
                                     {Py_tp_getset, permit_properties},
                                     {0, NULL}};
static PyType_Spec permit_spec = {"autoglm_reliability._accelerator.Permit", sizeof(Permit), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, permit_slots};

/* ---- attempts ---- */

/* The first attempt of a call is begun here; `native` is then its call, until somebody takes it over. Later
 * attempts are made by Python and have a `call`. */
typedef struct {
  PyObject_HEAD
  PyObject *policy;
  PyObject *call; /* Python's, if there is one */
  PyObject *raw;  /* the step as ctypes has it, when it was asked for */
  PyObject *costs;
  PyObject *server_delay;
  agr_call *native;
  agr_step step;
} Attempt;

static Attempt *make_attempt(PyTypeObject *type) {
  Attempt *attempt = (Attempt *)PyType_GenericAlloc(type, 0);
  if (attempt == NULL)
    return NULL;
  attempt->step.struct_size = sizeof attempt->step;
  if ((attempt->costs = PyTuple_New(0)) == NULL) {
    Py_DECREF(attempt);
    return NULL;
  }
  return attempt;
}

static PyObject *attempt_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
  PyObject *call;
  (void)keywords;
  if (!PyArg_ParseTuple(args, "O:Attempt", &call))
    return NULL;
  Attempt *attempt = make_attempt(type);
  if (attempt == NULL)
    return NULL;
  Py_INCREF(call);
  attempt->call = call;
  if ((attempt->raw = PyObject_GetAttrString(call, "_raw")) == NULL)
    Py_CLEAR(attempt);
  return (PyObject *)attempt;
}

static PyObject *step_bytes(const agr_step *step) {
  return PyBytes_FromStringAndSize((const char *)step, sizeof *step);
}

static PyObject *attempt_raw(PyObject *self, void *unused) {
  Attempt *attempt = (Attempt *)self;
  (void)unused;
  if (attempt->raw == NULL && hook(STEP) != NULL) {
    PyObject *bytes = step_bytes(&attempt->step);
    PyObject *made = bytes == NULL ? NULL : PyObject_CallFunctionObjArgs(hooks[STEP], bytes, NULL);
    Py_XDECREF(bytes);
    PyObject *before = attempt->raw;
    attempt->raw = made;
    Py_XDECREF(before);
  }
  Py_XINCREF(attempt->raw);
  return attempt->raw;
}

/* The address of the native call; 0 when it has ended, or was handed over. */
static PyObject *attempt_address(PyObject *self, void *unused) {
  (void)unused;
  return PyLong_FromVoidPtr(((Attempt *)self)->native);
}

/* It is another's from now on. */
static PyObject *attempt_release(PyObject *self, PyObject *unused) {
  (void)unused;
  ((Attempt *)self)->native = NULL;
  Py_RETURN_NONE;
}

static int attempt_traverse(PyObject *self, visitproc visit, void *arg) {
  Attempt *attempt = (Attempt *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(attempt->policy);
  Py_VISIT(attempt->call);
  Py_VISIT(attempt->raw);
  Py_VISIT(attempt->costs);
  Py_VISIT(attempt->server_delay);
  return 0;
}

static int attempt_clear(PyObject *self) {
  Attempt *attempt = (Attempt *)self;
  Py_CLEAR(attempt->policy);
  Py_CLEAR(attempt->call);
  Py_CLEAR(attempt->raw);
  Py_CLEAR(attempt->costs);
  Py_CLEAR(attempt->server_delay);
  return 0;
}

static void attempt_end(Attempt *attempt) {
  agr_call *native = attempt->native;
  attempt->native = NULL;
  agr.call_destroy(native); /* of NULL: nothing */
}

static void attempt_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  attempt_end((Attempt *)self);
  attempt_clear(self);
  release(self);
}

/* What is asked of each step: see Begun in call.py. */
static PyObject *attempt_told(PyObject *self, PyObject *unused) {
  const agr_step *step = &((Attempt *)self)->step;
  (void)unused;
  return Py_BuildValue("iILLLLL", step->kind, step->attempt, (long long)step->remaining_ns,
                       (long long)step->attempt_timeout_ns, (long long)step->connect_timeout_ns,
                       (long long)step->first_byte_timeout_ns, (long long)step->idle_timeout_ns);
}

/* The attempt was a success, and with it the call. */
static PyObject *attempt_succeed(PyObject *self, PyObject *unused) {
  Attempt *attempt = (Attempt *)self;
  (void)unused;
  if (attempt->native == NULL) {
    PyObject *call = PyObject_CallMethod(self, "_owned", NULL);
    PyObject *done = call == NULL ? NULL : PyObject_CallMethod(call, "_succeed", NULL);
    Py_XDECREF(call);
    return done;
  }
  agr_step step = {.struct_size = sizeof step};
  agr_error error;
  agr_status status = agr.call_advance(attempt->native, &success, &step, &error);
  attempt_end(attempt);
  if (status < 0)
    return failed(attempt->policy, status, &error);
  Py_RETURN_NONE;
}

/* Nobody waits for it any more. */
static PyObject *attempt_close(PyObject *self, PyObject *unused) {
  Attempt *attempt = (Attempt *)self;
  (void)unused;
  if (attempt->call != NULL)
    return PyObject_CallMethod(attempt->call, "close", NULL);
  attempt_end(attempt);
  Py_RETURN_NONE;
}

static PyObject *attempt_closed(PyObject *self, void *unused) {
  Attempt *attempt = (Attempt *)self;
  (void)unused;
  if (attempt->call != NULL)
    return PyObject_GetAttrString(attempt->call, "closed");
  return PyBool_FromLong(attempt->native == NULL);
}

static PyMethodDef attempt_methods[] = {{"_release", attempt_release, METH_NOARGS, NULL},
                                        {"_told", attempt_told, METH_NOARGS, NULL},
                                        {"_succeed", attempt_succeed, METH_NOARGS, NULL},
                                        {"_close", attempt_close, METH_NOARGS, NULL},
                                        {NULL, NULL, 0, NULL}};
static PyMemberDef attempt_members[] = {{"_policy", T_OBJECT, offsetof(Attempt, policy), READONLY, NULL},
                                        {"_call", T_OBJECT, offsetof(Attempt, call), 0, NULL},
                                        {"costs", T_OBJECT, offsetof(Attempt, costs), 0, NULL},
                                        {"server_delay", T_OBJECT, offsetof(Attempt, server_delay), 0, NULL},
                                        {NULL, 0, 0, 0, NULL}};
static PyGetSetDef attempt_properties[] = {{"_raw", attempt_raw, NULL, NULL, NULL},
                                           {"_address", attempt_address, NULL, NULL, NULL},
                                           {"_closed", attempt_closed, NULL, NULL, NULL},
                                           {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot attempt_slots[] = {{Py_tp_new, attempt_new},
                                      {Py_tp_dealloc, attempt_dealloc},
                                      {Py_tp_traverse, attempt_traverse},
                                      {Py_tp_clear, attempt_clear},
                                      {Py_tp_methods, attempt_methods},
                                      {Py_tp_members, attempt_members},
                                      {Py_tp_getset, attempt_properties},
                                      {0, NULL}};
static PyType_Spec attempt_spec = {"autoglm_reliability._accelerator.Attempt", sizeof(Attempt), 0,
                                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, attempt_slots};

/* Whether the function said nothing about its attempt. */
static int plain_attempt(const Attempt *attempt) {
  return attempt->native != NULL && attempt->costs != NULL && PyTuple_CheckExact(attempt->costs) &&
         PyTuple_Size(attempt->costs) == 0 && (attempt->server_delay == NULL || attempt->server_delay == Py_None);
}

/* ---- guarded calls ---- */

/* Where Python has to go on. */
enum { BEGUN, RETURNED, RAISED, ADVANCED };

static PyObject *resume(PyObject *policy, PyObject *function, PyObject *arguments, PyObject *keywords,
                        Attempt *attempt, int where, PyObject *result, PyObject *step) {
  return PyObject_CallFunction(hooks[RESUME], "OOOOOiOO", policy, function, arguments == NULL ? Py_None : arguments,
                               keywords == NULL ? Py_None : keywords, (PyObject *)attempt, where,
                               result == NULL ? Py_None : result, step == NULL ? Py_None : step);
}

/* What the caller gets for a value that the function returned. Takes the value. */
static PyObject *conclude(PyObject *policy, PyObject *function, PyObject *arguments, PyObject *keywords,
                          Attempt *attempt, PyObject *value) {
  PyObject *result = NULL, *bytes = NULL;
  if (!plain_attempt(attempt)) {
    result = resume(policy, function, arguments, keywords, attempt, RETURNED, value, NULL);
  } else {
    agr_step step = {.struct_size = sizeof step};
    agr_error error;
    agr_status status = agr.call_advance(attempt->native, &success, &step, &error);
    if (status == AGR_OK && step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_SUCCEEDED && step.result == NULL) {
      attempt_end(attempt);
      return value;
    }
    if (status < 0)
      result = failed(policy, status, &error);
    else if ((bytes = step_bytes(&step)) != NULL)
      result = resume(policy, function, arguments, keywords, attempt, ADVANCED, value, bytes);
  }
  Py_XDECREF(bytes);
  Py_DECREF(value);
  return result;
}

static PyObject *raised(PyObject *policy, PyObject *function, PyObject *arguments, PyObject *keywords,
                        Attempt *attempt) {
  PyObject *kind, *error, *trace, *result;
  PyErr_Fetch(&kind, &error, &trace);
  PyErr_NormalizeException(&kind, &error, &trace);
  if (trace != NULL)
    PyException_SetTraceback(error, trace);
  result = resume(policy, function, arguments, keywords, attempt, RAISED, error, NULL);
  Py_XDECREF(kind);
  Py_XDECREF(error);
  Py_XDECREF(trace);
  return result;
}

/* The caller's function, with the attempt as the current one. NULL with an exception. */
static PyObject *call_function(PyObject *function, PyObject *arguments, PyObject *keywords, Attempt *attempt) {
  PyObject *token = PyObject_CallFunctionObjArgs(hooks[SET], (PyObject *)attempt, NULL);
  if (token == NULL)
    return NULL;
  PyObject *value = arguments != NULL ? PyObject_Call(function, arguments, keywords)
                                      : PyObject_CallFunctionObjArgs(function, (PyObject *)attempt, NULL);
  PyObject *kind = NULL, *error = NULL, *trace = NULL;
  if (value == NULL)
    PyErr_Fetch(&kind, &error, &trace);
  PyObject *none = PyObject_CallFunctionObjArgs(hooks[RESET], token, NULL);
  Py_DECREF(token);
  if (none == NULL)
    Py_CLEAR(value);
  Py_XDECREF(none);
  if (kind != NULL)
    PyErr_Restore(kind, error, trace);
  return value;
}

/* arguments NULL: the function is given the attempt. */
static PyObject *guarded(PyObject *policy, PyObject *function, PyObject *arguments, PyObject *keywords) {
  if (hook(ATTEMPT) == NULL || hook(SET) == NULL || hook(RESET) == NULL || hook(RESUME) == NULL)
    return NULL;
  Attempt *attempt = make_attempt((PyTypeObject *)hooks[ATTEMPT]);
  if (attempt == NULL)
    return NULL;
  Py_INCREF(policy);
  attempt->policy = policy;
  PyObject *result;
  agr_error error;
  agr_status status = agr.call_begin(handle(policy), NULL, &attempt->native, &attempt->step, &error);
  if (status < 0) {
    result = failed(policy, status, &error);
  } else if (attempt->step.kind != AGR_STEP_ATTEMPT) {
    result = resume(policy, function, arguments, keywords, attempt, BEGUN, NULL, NULL);
  } else {
    PyObject *value = call_function(function, arguments, keywords, attempt);
    result = value != NULL ? conclude(policy, function, arguments, keywords, attempt, value)
                           : raised(policy, function, arguments, keywords, attempt);
  }
  Py_DECREF(attempt);
  return result;
}

static PyObject *policy_execute(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  if (!is_quick(self) || count != 1 || names != NULL)
    return do_all(EXECUTE, self, args, count, names);
  return guarded(self, args[0], NULL, NULL);
}

/* request, and what it is in C: bytes; None: the defaults. To Python it is a call that has begun. */
static PyObject *policy_start(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  agr_request request;
  int plain = is_quick(self) && count == 2 && names == NULL;
  int asks = plain && PyBytes_CheckExact(args[1]) && PyBytes_Size(args[1]) == (Py_ssize_t)sizeof request;
  if (!asks && !(plain && args[1] == Py_None))
    return do_all(START, self, args, count, names);
  if (hook(ATTEMPT) == NULL)
    return NULL;
  Attempt *attempt = make_attempt((PyTypeObject *)hooks[ATTEMPT]);
  if (attempt == NULL)
    return NULL;
  Py_INCREF(self);
  attempt->policy = self;
  if (asks)
    memcpy(&request, PyBytes_AsString(args[1]), sizeof request);
  agr_error error;
  agr_status status =
      agr.call_begin(handle(self), asks ? &request : NULL, &attempt->native, &attempt->step, &error);
  if (status >= 0)
    return (PyObject *)attempt;
  Py_DECREF(attempt);
  return failed(self, status, &error);
}

/* policy, function, arguments, keywords: the call of a decorated function. */
static PyObject *policy_run(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  if (!is_quick(self) || count != 3 || names != NULL || !PyTuple_Check(args[1]) || !PyDict_Check(args[2]))
    return do_all(RUN, self, args, count, names);
  return guarded(self, args[0], args[1], args[2]);
}

/* ---- the module ---- */

#define METHOD(name, function, text) \
  {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS, text}

static PyMethodDef methods[METHODS] = {
    METHOD("try_acquire", limiter_try_acquire,
           "try_acquire($self, /, tokens=1)\n--\n\n"
           "Takes the tokens if they are there. Raises NeverFits when the bucket cannot hold so many."),
    METHOD("try_acquire", keyed_try_acquire,
           "try_acquire($self, /, key, tokens=1)\n--\n\n"
           "Takes the tokens if they are there. Raises NeverFits when a bucket cannot hold so many."),
    METHOD("_take", limiter_take, NULL),
    METHOD("_take", keyed_take, NULL),
    METHOD("reserve", keyed_reserve,
           "reserve($self, /, key, tokens=1, max_wait=inf)\n--\n\n"
           "Takes the tokens now, to be used after `reservation.wait` seconds and then settled."),
    METHOD("_settle", keyed_settle, NULL),
    METHOD("available", keyed_available,
           "available($self, /, key)\n--\n\nTokens that could be taken now; negative when in debt."),
    METHOD("acquire", breaker_acquire,
           "acquire($self, /, *, classify=None)\n--\n\n"
           "A permit to make a call, to be used as a context manager or reported; raises CircuitOpen."),
    METHOD("_run", breaker_run, NULL),
    METHOD("execute", policy_execute,
           "execute($self, /, function, request=None, **fields)\n--\n\n"
           "Runs a call to its end on this thread: attempts by function, waits by sleeping."),
    METHOD("_run", policy_run, NULL),
    METHOD("_start", policy_start, NULL),
};
static const char *const method_names[METHODS] = {"limiter_try_acquire", "keyed_limiter_try_acquire",
                                                  "limiter_take",        "keyed_limiter_take",
                                                  "keyed_limiter_reserve", "keyed_limiter_settle",
                                                  "keyed_limiter_available",
                                                  "breaker_acquire",     "breaker_run",
                                                  "policy_execute",      "policy_run",
                                                  "policy_start"};

/* method(name, function): the method, which leaves to the function what it does not do itself. */
static PyObject *module_method(PyObject *module, PyObject *args) {
  const char *name;
  PyObject *function;
  (void)module;
  if (!PyArg_ParseTuple(args, "sO:method", &name, &function))
    return NULL;
  for (int index = 0; index < METHODS; index++) {
    if (strcmp(name, method_names[index]) != 0)
      continue;
    PyObject *before = whole[index];
    Py_INCREF(function);
    whole[index] = function;
    Py_XDECREF(before);
    return PyDescr_NewMethod(native_type, &methods[index]);
  }
  PyErr_SetString(PyExc_KeyError, name);
  return NULL;
}

/* register(name, object): something of Python's that is needed here. */
static PyObject *module_register(PyObject *module, PyObject *args) {
  const char *name;
  PyObject *object;
  (void)module;
  if (!PyArg_ParseTuple(args, "sO:register", &name, &object))
    return NULL;
  for (int index = 0; index < HOOKS; index++) {
    if (strcmp(name, hook_names[index]) != 0)
      continue;
    PyObject *before = hooks[index];
    Py_INCREF(object);
    hooks[index] = object;
    Py_XDECREF(before);
    Py_RETURN_NONE;
  }
  PyErr_SetString(PyExc_KeyError, name);
  return NULL;
}

/* connect(find): find gives the address of each of the library's functions that are used here. */
static PyObject *module_connect(PyObject *module, PyObject *find) {
  (void)module;
  for (size_t index = 0; index < sizeof functions / sizeof *functions; index++) {
    PyObject *number = PyObject_CallFunction(find, "s", functions[index].name);
    void *address = number == NULL ? NULL : PyLong_AsVoidPtr(number);
    Py_XDECREF(number);
    if (address == NULL) {
      if (PyErr_Occurred() == NULL)
        PyErr_Format(PyExc_ImportError, "the library has no %s", functions[index].name);
      return NULL;
    }
    memcpy(functions[index].place, &address, sizeof address);
  }
  agr.outcome_init(&success, sizeof success);
  Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {{"connect", module_connect, METH_O, NULL},
                                       {"method", module_method, METH_VARARGS, NULL},
                                       {"register", module_register, METH_VARARGS, NULL},
                                       {NULL, NULL, 0, NULL}};

static PyObject *add_type(PyObject *module, const char *name, PyType_Spec *spec) {
  PyObject *type = PyType_FromSpec(spec);
  if (type != NULL && PyModule_AddObjectRef(module, name, type) < 0)
    Py_CLEAR(type);
  return type;
}

static int module_exec(PyObject *module) {
  static int64_t owner = -1;
  int64_t present = PyInterpreterState_GetID(PyInterpreterState_Get());
  if (owner >= 0 && owner != present) {
    PyErr_SetString(PyExc_ImportError, "the accelerator serves one interpreter of a process");
    return -1;
  }
  PyObject *native = add_type(module, "Native", &native_spec);
  PyObject *permit = add_type(module, "Permit", &permit_spec);
  PyObject *attempt = add_type(module, "Attempt", &attempt_spec);
  Py_XDECREF(permit);
  Py_XDECREF(attempt);
  if (native == NULL || permit == NULL || attempt == NULL) {
    Py_XDECREF(native);
    return -1;
  }
  native_type = (PyTypeObject *)native; /* for good */
  owner = present;
  if (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) < 0 ||
      PyModule_AddIntConstant(module, "MAJOR", AGR_VERSION_MAJOR) < 0)
    return -1;
  return PyModule_AddIntConstant(module, "MINOR", AGR_VERSION_MINOR);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};
static struct PyModuleDef module_definition = {.m_base = PyModuleDef_HEAD_INIT,
                                               .m_name = "_accelerator",
                                               .m_doc = "The hot paths, without ctypes.",
                                               .m_methods = module_methods,
                                               .m_slots = module_slots};

PyMODINIT_FUNC PyInit__accelerator(void) {
  return PyModuleDef_Init(&module_definition);
}
