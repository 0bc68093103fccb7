/* The optional accelerator of hook calls: what also exists in Python, without what Python costs.
 *
 * `call` and `renew` are the common way of `native.Instance`, `scan` that of `inputs.read_call`. None decides
 * anything that the Python code would not decide in the same way: where a case is uncommon they say so, and Python does
 * it. The suites run with it and without it.
 *
 * Rules that make this safe: a guest's numbers are masked to 32 bits and compared with the size of its memory before a
 * byte is touched; no byte is read at or behind the end of a body, which need not end with a zero; every pointer to the
 * engine comes from `capi.py`, which checked the library; an object made here is returned at once, and never given back.
 */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

/* ── the guest's call ── */

/* wasmtime_val_raw_t, and wasmtime_extern_t, which has the number of its store; a function's has its name beside it. */
typedef struct { uint64_t low, high; } cell;
typedef struct { uint64_t kind, store, rest[2]; } item;
typedef struct { item found; const char *name; size_t length; } export;

/* wasmtime's C API of the version that capi.py names, in the order of capi.FOR_ACCELERATOR. */
typedef struct {
    void *(*func_call_unchecked)(void *context, const void *function, cell *cells, size_t count, void **trap);
    void *(*store_new)(void *engine, void *data, void *finalizer);
    void *(*store_context)(void *store);
    void (*store_limiter)(void *store, int64_t memory, int64_t elements, int64_t instances, int64_t tables, int64_t);
    void (*store_epoch_deadline_callback)(void *store, const void *function, void *data, void *finalizer);
    void (*store_delete)(void *store);
    void (*context_set_epoch_deadline)(void *context, uint64_t ticks);
    void *(*instance_pre_instantiate)(const void *pre, void *context, uint64_t *instance, void **trap);
    bool (*instance_export_get)(void *context, const uint64_t *instance, const char *name, size_t length, item *found);
    uint8_t *(*memory_data)(void *context, const void *memory);
    size_t (*memory_data_size)(void *context, const void *memory);
} functions;
static functions wasmtime;

/* The memory of an Instance, which layouts.py describes too. It outlives every call that is given its address. */
typedef struct {
    uint64_t instance[2];             /* the number of its store, and its own */
    item memory;
    cell cells[2], nested[2];
    uint64_t fuel, trap_code;
    void *context, *trap, *failure;
    uint64_t begin_ns, fresh;         /* when the call began, and whether that was with the instantiation */
    uint64_t armed, thread;           /* for which epoch and thread its deadline is set */
    uint8_t *base;                    /* the guest's memory as it was seen last; it never moves, and never shrinks */
    uint64_t size;
    uint64_t region, region_size;     /* the guest's place for inputs; 0 and 0 where it has none */
    uint64_t pointer;                 /* where this call's is */
    export *alloc, *dealloc;          /* NULL where the guest has none */
    void *store, *engine, *pre, *on_deadline;
    uint64_t ticks, max_output, max_memory, max_elements, max_tables;
    const uint64_t *own, *own_end;    /* where its stack and its data are: first and behind the last, in order */
    uint64_t most, worn_size, worn_end; /* bytes that its memory may have, and marks behind which it is worn */
} block;

enum { NOTHING, ALLOC, HOOK, DEALLOC }; /* what failed */

static PyObject *epoch;   /* engine.EPOCH: a list of one number */
static PyObject *running; /* program.RUNNING: a weak reference to the instance that runs on each thread */

static void begin(block *at)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* what perf_counter_ns reads */
    at->begin_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Call one of the guest's functions; whether that failed. */
static bool invoke(block *at, export *function, uint64_t first, uint64_t second, size_t count)
{
    if (function->found.store != at->instance[0]) /* border.py has seen that it is there */
        wasmtime.instance_export_get(at->context, at->instance, function->name, function->length, &function->found);
    at->cells[0].low = first;
    at->cells[1].low = second;
    at->failure = wasmtime.func_call_unchecked(at->context, &function->found.store, at->cells, count, &at->trap);
    at->size = wasmtime.memory_data_size(at->context, &at->memory.store);
    return at->failure || at->trap;
}

/* Whether a region touches the guest's own stack or data, as border.OwnMemory says. */
static bool touches_own(const block *at, uint64_t begin, uint64_t end)
{
    const uint64_t *span = at->own_end; /* inputs are behind all of them, mostly */
    while (span > at->own && span[-1] > begin && span[-2] >= end)
        span -= 2;
    return span > at->own && span[-1] > begin;
}

/* How far allocations may go on from `end`, as border.OwnMemory.room says. */
static uint64_t room(const block *at, uint64_t end)
{
    const uint64_t *span = at->own;
    while (span < at->own_end && span[1] <= end)
        span += 2;
    return span < at->own_end && span[0] >= end && span[0] < at->most ? span[0] : at->most;
}

/* Put the input into the guest and run its hook. `at` belongs to this thread meanwhile, and nobody needs the
 * interpreter, so the engine's clock can tick, and its deadline's callback and host functions can run. */
static int run(block *at, export *function, const char *data, uint64_t size)
{
    at->pointer = at->region;
    if (size > at->region_size) {
        if (invoke(at, at->alloc, size, 0, 1))
            return ALLOC;
        at->pointer = at->cells[0].low & UINT32_MAX;
        if (!at->pointer || at->pointer + size > at->size || touches_own(at, at->pointer, at->pointer + size))
            return ALLOC;
    }
    memcpy(at->base + at->pointer, data, size);
    if (invoke(at, function, at->pointer, size, 2))
        return HOOK;
    uint64_t packed = at->cells[0].low, length = packed & UINT32_MAX;
    if (packed && (length > at->max_output || (packed >> 32) + length > at->size))
        return HOOK;
    uint64_t end = (packed >> 32) + length, behind = size > at->region_size ? at->pointer + size : 0;
    if (end <= behind || touches_own(at, packed >> 32, end)) /* a constant is not an allocation */
        end = behind;
    if (!at->worn_end && end) {
        uint64_t most = behind ? room(at, behind) : at->most;
        at->worn_end = end + ((end <= most ? most : at->most) - end) / 2;
    }
    if ((at->worn_end && end > at->worn_end) || at->size > at->worn_size)
        at->armed = UINT64_MAX; /* it is worn: the next call begins in Python, which takes a new store */
    return NOTHING;
}

/* Give the guest its answer and its input back, as Instance._free_all does. */
static int give_back(block *at, uint64_t packed, uint64_t size)
{
    uint64_t start = packed >> 32, end = start + (packed & UINT32_MAX);
    bool overlap = start == at->pointer || (start < at->pointer + size && at->pointer < end);
    if (packed && !overlap && invoke(at, at->dealloc, start, end - start, 2))
        return DEALLOC;
    return size > at->region_size && invoke(at, at->dealloc, at->pointer, size, 2) ? DEALLOC : NOTHING;
}

/* call(at, function, data, instance, last): the guest's answer as bytes; None where it has none; or a number.
 *
 * `at` is the address of an open Instance's block, `function` of an export that returns an i64, `instance` a weak
 * reference to it. With `last` the guest need not free anything. A number is what failed; the block has the trap, the
 * failure or the cells. NOTHING: it is an uncommon call, and has not begun. */
static PyObject *call(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    (void)self;
    if (!running || count != 5 || !PyBytes_Check(arguments[2]))
        return PyErr_Format(PyExc_TypeError, "call(address, address, bytes, reference, bool)");
    block *at = PyLong_AsVoidPtr(arguments[0]);
    export *function = PyLong_AsVoidPtr(arguments[1]);
    const char *data = PyBytes_AsString(arguments[2]);
    uint64_t size = (uint64_t)PyBytes_Size(arguments[2]);
    uint64_t now = PyLong_AsUnsignedLongLong(PyList_GetItem(epoch, 0)); /* borrowed; nothing runs until it was read */
    if (!at || !function || PyErr_Occurred())
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "an address is 0");
    if (at->armed != now || at->thread != PyThread_get_thread_ident() || !size || size > UINT32_MAX ||
        (size > at->region_size ? !at->alloc : at->region + size > at->size))
        return PyLong_FromLong(NOTHING);
    PyObject *thread = PyLong_FromUnsignedLongLong(at->thread);
    int broken = thread ? PyDict_SetItem(running, thread, arguments[3]) : -1;
    Py_XDECREF(thread);
    if (broken)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    if (!at->fresh)
        begin(at);
    at->fresh = 0;
    broken = run(at, function, data, size);
    Py_END_ALLOW_THREADS
    if (broken)
        return PyLong_FromLong(broken);
    uint64_t packed = at->cells[0].low;
    data = (const char *)at->base + (packed >> 32);
    PyObject *answer = packed ? PyBytes_FromStringAndSize(data, packed & UINT32_MAX) : Py_NewRef(Py_None);
    if (answer && arguments[4] != Py_True && at->dealloc && (packed || size > at->region_size)) {
        Py_BEGIN_ALLOW_THREADS
        broken = give_back(at, packed, size);
        Py_END_ALLOW_THREADS
    }
    if (!broken)
        return answer;
    Py_DECREF(answer);
    return PyLong_FromLong(broken);
}

/* renew(at): a new store with fresh memory in place of the one that the block has, if any, as Instance._renew does.
 * Whether the guest came up; else the block has the trap or the failure. */
static PyObject *renew(PyObject *self, PyObject *address)
{
    (void)self;
    block *at = PyLong_AsVoidPtr(address);
    if (!at || !running)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "the address is 0");
    Py_BEGIN_ALLOW_THREADS
    if (at->store)
        wasmtime.store_delete(at->store);
    at->size = at->worn_end = 0; /* the size tells host functions that a start function calls them */
    begin(at);
    at->store = wasmtime.store_new(at->engine, NULL, NULL);
    at->context = wasmtime.store_context(at->store);
    wasmtime.store_limiter(at->store, at->max_memory, at->max_elements, 1, at->max_tables, 1);
    wasmtime.store_epoch_deadline_callback(at->store, at->on_deadline, NULL, NULL);
    wasmtime.context_set_epoch_deadline(at->context, at->ticks);
    at->failure = wasmtime.instance_pre_instantiate(at->pre, at->context, at->instance, &at->trap);
    if (!at->failure && !at->trap) {
        wasmtime.instance_export_get(at->context, at->instance, "memory", 6, &at->memory);
        at->base = wasmtime.memory_data(at->context, &at->memory.store);
        at->size = wasmtime.memory_data_size(at->context, &at->memory.store);
    }
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(!at->failure && !at->trap);
}

/* ── the look at an input ── */

/* Kinds of JSON values, as bits, and what accelerator.py says more of a field. */
enum { NONE = 1, BOOLEAN = 2, INTEGER = 4, FLOAT = 8, STRING = 16, ARRAY = 32, OBJECT = 64 };
enum { PLAIN, CONTEXT, ATTRIBUTES, STRINGS, REQUEST_ID, QUERY, NORMALIZED };
enum { MAX_DEPTH = 32, MAX_FIELDS = 16, MAX_NAME = 28, MAX_NAMES = 32 };
enum { MAX_BODY = 65536, MAX_REQUEST_ID = 256, MAX_KEY = 512 };

typedef struct { const uint8_t *at, *end; } text;
/* accelerator.py packs these. They are bytes and nothing else, and so are right at any address. */
typedef struct { uint8_t name[MAX_NAME], length, kinds, role, fact; } field;
typedef struct { field fields[MAX_FIELDS]; uint8_t count, required; } shape;

typedef struct {
    text rest;                           /* what is to be read of the body */
    const shape *shapes;                 /* of the document, its context, and that one's attributes */
    text request_id;                     /* with its quotes */
    uint8_t *key;                        /* the facts asked for, as JSON, each with a mark that is in no JSON */
    size_t size;
} reader;

static int value(reader *in, unsigned depth, bool only_strings, const shape *inside);

static void space(text *rest)
{
    while (rest->at < rest->end && (*rest->at == ' ' || *rest->at == '\n' || *rest->at == '\r' || *rest->at == '\t'))
        rest->at++;
}

static bool take(text *rest, uint8_t wanted)
{
    space(rest);
    bool there = rest->at < rest->end && *rest->at == wanted;
    rest->at += there;
    return there;
}

static bool word(text *rest, const char *wanted, size_t length)
{
    bool there = (size_t)(rest->end - rest->at) >= length && memcmp(rest->at, wanted, length) == 0;
    rest->at += there ? length : 0;
    return there;
}

/* The length of the UTF-8 sequence at `at`, which begins with a byte above 127; 0 where it is none (RFC 3629). */
static unsigned utf8(const uint8_t *at, const uint8_t *end)
{
    unsigned length = at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
    if (!length || (size_t)(end - at) < length)
        return 0;
    for (unsigned i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
           (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f) ? 0 : length;
}

/* The length of an escape: 0 where it is none, or one of a surrogate, of which Python finds out the other. */
static unsigned escape(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 2 || at[1] != 'u')
        return end - at >= 2 && memchr("\"\\/bfnrt", at[1], 8) ? 2 : 0;
    if (end - at < 6)
        return 0;
    for (unsigned i = 2; i < 6; i++)
        if (!((at[i] >= '0' && at[i] <= '9') || ((at[i] | 32) >= 'a' && (at[i] | 32) <= 'f')))
            return 0;
    return (at[2] | 32) == 'd' && at[3] > '7' ? 0 : 6;
}

/* A string from behind its first quote to behind its last; `plain` says whether it has no escape. */
static bool string(text *rest, bool *plain)
{
    const uint8_t *at = rest->at, *end = rest->end;
    const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    *plain = true;
    for (;;) {
        if (end - at >= 8) { /* eight bytes at a time; the first that is marked is special, others may not be */
            uint64_t eight;
            memcpy(&eight, at, 8);
            uint64_t quote = eight ^ ones * '"', slash = eight ^ ones * '\\';
            uint64_t special = ((quote - ones) | (slash - ones) | (eight - ones * 32) | eight) & highs;
            if (!special) {
                at += 8;
                continue;
            }
            if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
                at += __builtin_ctzll(special) / 8;
        }
        if (at == end || *at < 32)
            return false;
        if (*at == '"') {
            rest->at = at + 1;
            return true;
        }
        *plain = *plain && *at != '\\';
        unsigned more = *at == '\\' ? escape(at, end) : *at > 127 ? utf8(at, end) : 1;
        if (!more)
            return false;
        at += more;
    }
}

static bool digits(text *rest)
{
    const uint8_t *begin = rest->at;
    while (rest->at < rest->end && *rest->at >= '0' && *rest->at <= '9')
        rest->at++;
    return rest->at > begin;
}

/* A number without an exponent, of a length that no reader turns into another kind or into infinity. An integer below 0
 * counts as the other kind: no field of ours may be one. */
static int number(text *rest)
{
    const uint8_t *begin = rest->at, *first = begin + (*begin == '-');
    int kind = first > begin ? FLOAT : INTEGER;
    rest->at = first;
    if (!digits(rest) || (*first == '0' && rest->at - first > 1))
        return 0;
    if (rest->at < rest->end && *rest->at == '.') {
        rest->at++;
        kind = FLOAT;
        if (!digits(rest))
            return 0;
    }
    bool exponent = rest->at < rest->end && (*rest->at | 32) == 'e';
    return exponent || rest->at - begin > 18 ? 0 : kind;
}

/* Where that ends which tells a query's class (matching.query_classes): behind its first word, where it begins with one
 * and is one statement; else behind its last quote. */
static const uint8_t *telling(const uint8_t *query, const uint8_t *end)
{
    const uint8_t *word = query + 1;
    while ((*word | 32) >= 'a' && (*word | 32) <= 'z')
        word++;
    if (word == query + 1)
        return end;
    for (const uint8_t *at = word; at < end - 2; at++) /* a ';' at the very end begins no other statement */
        if (*at == ';' || (*at == '\\' && at[1] == 'u'))
            return end;
    return word;
}

/* The members of an object from behind its bracket, each of another name. With `inside`, the fields that it requires
 * are there, and all that it has are right; with `only_strings` no value is anything else. */
static bool object(reader *in, unsigned depth, bool only_strings, const shape *inside)
{
    text *rest = &in->rest, names[MAX_NAMES];
    uint32_t found = 0, count = 0;
    if (take(rest, '}'))
        return !inside || !inside->required;
    do {
        bool plain;
        if (!take(rest, '"'))
            return false;
        const uint8_t *name = rest->at;
        if (!string(rest, &plain) || !plain || count == MAX_NAMES)
            return false; /* an escape may spell another of the names; of more, Python finds out */
        size_t length = (size_t)(rest->at - name) - 1;
        for (unsigned i = 0; i < count; i++)
            if ((size_t)(names[i].end - names[i].at) == length && memcmp(names[i].at, name, length) == 0)
                return false;
        names[count++] = (text){name, name + length};
        const field *ours = NULL;
        for (unsigned i = 0; inside && length <= MAX_NAME && i < inside->count; i++)
            if (inside->fields[i].length == length && memcmp(inside->fields[i].name, name, length) == 0) {
                ours = &inside->fields[i];
                found |= 1u << i;
                break;
            }
        if (!take(rest, ':'))
            return false;
        space(rest);
        const uint8_t *begin = rest->at, role = ours ? ours->role : PLAIN;
        const shape *next = (role == CONTEXT || role == ATTRIBUTES) && in->shapes[role].count ? in->shapes + role : 0;
        int kind = value(in, depth, role == STRINGS || role == ATTRIBUTES, next);
        if (!kind || (ours && !(ours->kinds & kind)) || (only_strings && kind != STRING) ||
            (role == NORMALIZED && rest->at - begin == 2))
            return false;
        if (role == REQUEST_ID) {
            in->request_id = (text){begin, rest->at};
            if (kind != STRING || rest->at - begin <= 2 || rest->at - begin - 2 > MAX_REQUEST_ID ||
                memchr(begin, '\\', (size_t)(rest->at - begin)))
                return false;
        }
        if (ours && ours->fact) {
            length = (size_t)((role == QUERY && kind == STRING ? telling(begin, rest->at) : rest->at) - begin);
            if (length >= MAX_KEY - in->size)
                return false;
            memcpy(in->key + in->size, begin, length);
            in->key[in->size + length] = ours->fact;
            in->size += length + 1;
        }
    } while (take(rest, ','));
    return take(rest, '}') && (!inside || !(~found & ((1u << inside->required) - 1)));
}

static bool array(reader *in, unsigned depth, bool only_strings)
{
    if (take(&in->rest, ']'))
        return true;
    do {
        int kind = value(in, depth, false, NULL);
        if (!kind || (only_strings && kind != STRING))
            return false;
    } while (take(&in->rest, ','));
    return take(&in->rest, ']');
}

/* One value; its kind, or 0 where it is none, or a case for Python. */
static int value(reader *in, unsigned depth, bool only_strings, const shape *inside)
{
    text *rest = &in->rest;
    space(rest);
    if (rest->at == rest->end || depth >= MAX_DEPTH)
        return 0;
    switch (*rest->at) {
    case '"': return rest->at++, string(rest, &(bool){false}) ? STRING : 0;
    case '{': return rest->at++, object(in, depth + 1, only_strings, inside) ? OBJECT : 0;
    case '[': return rest->at++, array(in, depth + 1, only_strings) ? ARRAY : 0;
    case 'n': return word(rest, "null", 4) ? NONE : 0;
    case 't': return word(rest, "true", 4) ? BOOLEAN : 0;
    case 'f': return word(rest, "false", 5) ? BOOLEAN : 0;
    default: return number(rest);
    }
}

/* scan(shapes, body): where the body is JSON of those shapes, with nothing missing or wrong as orjson.loads and
 * inputs._Shape.fits would find, the JSON text of its request id, and the key: what the shapes ask for of it. None
 * where it is not, where that is not certain, or where the key is long. scan(shapes, body, start) is about a value that
 * begins there, and says also where it ends. */
static PyObject *scan(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    (void)self;
    bool packed = count >= 2 && PyBytes_Check(arguments[0]) && (size_t)PyBytes_Size(arguments[0]) == 3 * sizeof(shape);
    const shape *shapes = packed ? (const shape *)PyBytes_AsString(arguments[0]) : NULL;
    for (int i = 0; shapes && i < 3; i++)
        shapes = shapes[i].count > MAX_FIELDS || shapes[i].required > shapes[i].count ? NULL : shapes;
    if (!shapes || !PyBytes_Check(arguments[1]))
        return PyErr_Format(PyExc_TypeError, "scan(shapes, bytes, start)");
    const uint8_t *data = (const uint8_t *)PyBytes_AsString(arguments[1]);
    Py_ssize_t size = PyBytes_Size(arguments[1]), start = count > 2 ? PyLong_AsSsize_t(arguments[2]) : 0;
    if (start < 0 || start > size)
        return PyErr_Format(PyExc_ValueError, "it begins elsewhere");
    uint8_t key[MAX_KEY];
    text rest = {data + start, data + (size - start > MAX_BODY ? start + MAX_BODY : size)};
    reader in = {rest, shapes, {data, data}, key, 0};
    if (value(&in, 0, false, shapes) != OBJECT || (count == 2 && (space(&in.rest), in.rest.at != data + size)))
        Py_RETURN_NONE;
    return Py_BuildValue(count == 2 ? "y#y#" : "(y#y#)n", in.request_id.at, in.request_id.end - in.request_id.at,
                         key, (Py_ssize_t)in.size, in.rest.at - data);
}

/* ── the module ── */

/* use(functions, epoch, running): the addresses of wasmtime's functions, the list that holds the engine's clock, and
 * the table of weak references to the instances that run. */
static PyObject *use(PyObject *self, PyObject *arguments)
{
    (void)self;
    const char *addresses;
    Py_ssize_t size;
    PyObject *list, *table;
    if (!PyArg_ParseTuple(arguments, "y#O!O!", &addresses, &size, &PyList_Type, &list, &PyDict_Type, &table))
        return NULL;
    if (size != sizeof wasmtime)
        return PyErr_Format(PyExc_ValueError, "other functions are wanted");
    memcpy(&wasmtime, addresses, sizeof wasmtime); /* POSIX: a function's address is one like others */
    epoch = Py_NewRef(list); /* for as long as the process lives, as this module does */
    running = Py_NewRef(table);
    Py_RETURN_NONE;
}

/* Each field that Python knows the place of, in the order of layouts.py, which compares them. */
#define FIELD(structure, name) {#structure "." #name, offsetof(structure, name), sizeof ((structure *)0)->name}
#define BLOCK(name) FIELD(block, name)
#define FUNCTION(name) {"wasmtime." #name, offsetof(functions, name), sizeof wasmtime.name}
static const struct { const char *name; size_t offset, size; } layout[] = {
    FIELD(item, kind), FIELD(item, store), FIELD(item, rest),
    FIELD(export, found), FIELD(export, name), FIELD(export, length),
    BLOCK(instance), BLOCK(memory), BLOCK(cells), BLOCK(nested), BLOCK(fuel), BLOCK(trap_code),
    BLOCK(context), BLOCK(trap), BLOCK(failure), BLOCK(begin_ns), BLOCK(fresh), BLOCK(armed), BLOCK(thread),
    BLOCK(base), BLOCK(size), BLOCK(region), BLOCK(region_size), BLOCK(pointer), BLOCK(alloc), BLOCK(dealloc),
    BLOCK(store), BLOCK(engine), BLOCK(pre), BLOCK(on_deadline),
    BLOCK(ticks), BLOCK(max_output), BLOCK(max_memory), BLOCK(max_elements), BLOCK(max_tables),
    BLOCK(own), BLOCK(own_end), BLOCK(most), BLOCK(worn_size), BLOCK(worn_end),
    FUNCTION(func_call_unchecked), FUNCTION(store_new), FUNCTION(store_context), FUNCTION(store_limiter),
    FUNCTION(store_epoch_deadline_callback), FUNCTION(store_delete), FUNCTION(context_set_epoch_deadline),
    FUNCTION(instance_pre_instantiate), FUNCTION(instance_export_get), FUNCTION(memory_data),
    FUNCTION(memory_data_size),
    FIELD(field, name), FIELD(field, length), FIELD(field, kinds), FIELD(field, role), FIELD(field, fact),
    FIELD(shape, fields), FIELD(shape, count), FIELD(shape, required),
};

static PyObject *layout_tuple(void)
{
    Py_ssize_t count = sizeof layout / sizeof *layout;
    PyObject *made = PyTuple_New(count);
    for (Py_ssize_t i = 0; made && i < count; i++) {
        PyObject *each = Py_BuildValue("snn", layout[i].name, (Py_ssize_t)layout[i].offset, (Py_ssize_t)layout[i].size);
        if (!each || PyTuple_SetItem(made, i, each)) /* which takes the reference, whatever comes of it */
            Py_CLEAR(made);
    }
    return made;
}

static PyMethodDef methods[] = {
    {"call", (PyCFunction)(void (*)(void))call, METH_FASTCALL, NULL},
    {"renew", renew, METH_O, NULL},
    {"scan", (PyCFunction)(void (*)(void))scan, METH_FASTCALL, NULL},
    {"use", use, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "hookline_accelerator", .m_size = -1,
                                        .m_methods = methods};

PyMODINIT_FUNC PyInit_hookline_accelerator(void)
{
    PyObject *module = PyModule_Create(&definition), *fields = layout_tuple();
    /* accelerator.py compares both: what this was built from, and where the fields are. */
    bool broken = !module || !fields || PyModule_AddStringConstant(module, "source", SOURCE) ||
                  PyModule_AddObjectRef(module, "layout", fields);
    Py_XDECREF(fields);
    if (broken)
        Py_CLEAR(module);
    return module;
}
