/* The native peer: what a sidecar in C does with the same bytes, the same guest and the same engine.
 *
 * One thread, epoll, HTTP/1.1 with keep-alive and pipelining, over a unix socket or TCP. A call is alloc (or the
 * guest's fixed input region), write, hook, read; then plugin, request_id and bundle are spliced into the guest's
 * answer, so that the body is, byte for byte, what Hookline answers. /v1/auth asks authenticate, then authorize.
 * One instance is kept for all calls; with -f each call has a fresh one, from the pooling allocator.
 *
 * It is a peer for measuring, not a sidecar: it validates no JSON, holds no statistics, loads one module, once.
 *
 * The engine is the library of the wasmtime wheel, which brings no headers. The prototypes below are those of
 * https://docs.wasmtime.dev/c-api/ for the wheel's version, which bench/peers/__init__.py checks.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* wasmtime's C API, as far as it is used here. */
typedef struct config config_t; typedef struct engine engine_t; typedef struct pooling pooling_t;
typedef struct store store_t; typedef struct context context_t; typedef struct module module_t;
typedef struct linker linker_t; typedef struct pre pre_t; typedef struct fault fault_t; typedef struct trap trap_t;
typedef struct { uint64_t store; size_t index; } instance_t;
typedef struct { uint64_t store; void *inner; } func_t;
typedef struct { struct { uint64_t store; uint32_t a; } head; uint32_t b; } memory_t;
typedef struct { uint64_t store; uint32_t a, b, c; } global_t;
typedef struct { uint8_t kind; union { func_t func; memory_t memory; global_t global; } of; } extern_t;
typedef struct { uint8_t kind; union { int32_t i32; uint8_t v128[16]; uint64_t most[3]; } of; } val_t;
typedef union { int32_t i32; int64_t i64; uint8_t v128[16]; } raw_t;
typedef struct { size_t size; char *data; } message_t;
enum { KIND_FUNC = 0, KIND_GLOBAL = 1, KIND_MEMORY = 3 };

extern config_t *wasm_config_new(void);
extern engine_t *wasm_engine_new_with_config(config_t *);
#define FLAGS(X) \
  X(epoch_interruption, true) X(parallel_compilation, false) X(wasm_threads, false) X(wasm_memory64, false) \
  X(wasm_multi_memory, false) X(wasm_component_model, false) X(wasm_function_references, false) X(wasm_gc, false) \
  X(wasm_exceptions, false) X(gc_support, false)
#define DECLARE_FLAG(name, value) extern void wasmtime_config_##name##_set(config_t *, bool);
FLAGS(DECLARE_FLAG)
extern pooling_t *wasmtime_pooling_allocation_config_new(void);
#define POOL(X) \
  X(total_core_instances, uint32_t, 8) X(total_memories, uint32_t, 8) X(total_tables, uint32_t, 16) \
  X(max_memory_size, size_t, MEMORY_LIMIT) X(linear_memory_keep_resident, size_t, 1 << 20)
#define DECLARE_POOL(name, type, value) extern void wasmtime_pooling_allocation_config_##name##_set(pooling_t *, type);
POOL(DECLARE_POOL)
extern void wasmtime_pooling_allocation_strategy_set(config_t *, pooling_t *);
extern void wasmtime_config_max_wasm_stack_set(config_t *, size_t);
extern void wasmtime_engine_increment_epoch(engine_t *);
extern fault_t *wasmtime_module_new(engine_t *, const uint8_t *, size_t, module_t **);
extern linker_t *wasmtime_linker_new(engine_t *);
extern fault_t *wasmtime_linker_instantiate_pre(linker_t *, module_t *, pre_t **);
extern fault_t *wasmtime_instance_pre_instantiate(pre_t *, context_t *, instance_t *, trap_t **);
extern bool wasmtime_instance_export_get(context_t *, const instance_t *, const char *, size_t, extern_t *);
extern store_t *wasmtime_store_new(engine_t *, void *, void (*)(void *));
extern void wasmtime_store_delete(store_t *);
extern context_t *wasmtime_store_context(store_t *);
extern void wasmtime_store_limiter(store_t *, int64_t, int64_t, int64_t, int64_t, int64_t);
extern void wasmtime_context_set_epoch_deadline(context_t *, uint64_t);
extern fault_t *wasmtime_func_call_unchecked(context_t *, const func_t *, raw_t *, size_t, trap_t **);
extern uint8_t *wasmtime_memory_data(context_t *, const memory_t *);
extern size_t wasmtime_memory_data_size(context_t *, const memory_t *);
extern void wasmtime_global_get(context_t *, const global_t *, val_t *);
extern void wasmtime_error_message(const fault_t *, message_t *);
extern void wasmtime_error_delete(fault_t *), wasm_trap_delete(trap_t *);

/* Hookline's own settings: sidecar/hookline_runtime/guest/engine.py and the defaults of limits. */
enum { TICK_US = 5000, DEADLINE_TICKS = 100 / 5 + 1, MEMORY_LIMIT = 64 << 20, TABLE_ELEMENTS = 200000 };
enum { WASM_STACK = 512 << 10, OUTPUT_LIMIT = 1 << 20, BODY_LIMIT = 16 << 20, HEAD_LIMIT = 16 << 10 };
enum { MAX_FDS = 65536, EVENTS = 256, MOST_HEADERS = 64 };
static const char *const HOOKS[] = {"route", "pre_query", "authenticate", "authorize", "rewrite", "custom_hook"};
enum { AUTHENTICATE = 2, AUTHORIZE = 3, HOOK_COUNT = 6 };

typedef struct { const char *data; size_t size; } text;
typedef struct { char *data; size_t size, room; } buffer;
typedef struct { int fd; bool closing, blocked; size_t sent; buffer in, out; } conn;
typedef struct {
  store_t *store;
  context_t *context;
  memory_t memory;
  func_t alloc, hooks[HOOK_COUNT];
  uint32_t has, input, input_size; /* a bit for each hook that was looked up; the fixed input region, if any */
} instance;

static engine_t *engine;
static pre_t *pre; /* the module, linked once */
static bool per_call;
static instance kept;
static buffer plugin, bundle; /* ,"plugin":"…","request_id": and ,"bundle":"…"} */
static conn *conns[MAX_FDS];

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void check(fault_t *error, const char *what) {
  if (!error) return;
  message_t found;
  wasmtime_error_message(error, &found);
  fprintf(stderr, "%s: %.*s\n", what, (int)found.size, found.data);
  exit(1);
}

static void room(buffer *self, size_t more) {
  if (self->size + more <= self->room) return;
  self->room = (self->size + more) * 2;
  if (!(self->data = realloc(self->data, self->room))) die("memory");
}

static void add(buffer *self, const char *data, size_t size) {
  room(self, size);
  memcpy(self->data + self->size, data, size);
  self->size += size;
}
#define ADD(self, literal) add(self, literal, sizeof(literal) - 1)

static void add_json(buffer *self, text from, bool lower) {
  room(self, from.size * 2 + 2);
  char *to = self->data + self->size;
  *to++ = '"';
  for (size_t i = 0; i < from.size; i++) {
    char c = from.data[i];
    if (c == '"' || c == '\\') *to++ = '\\';
    *to++ = lower && c >= 'A' && c <= 'Z' ? c | 0x20 : (unsigned char)c < 0x20 ? ' ' : c;
  }
  *to++ = '"';
  self->size = (size_t)(to - self->data);
}

/* Text with values in it: '$' for one as it is, '%' for one as a string of JSON. */
static void join(buffer *self, const char *form, const text *values) {
  for (size_t plain; plain = strcspn(form, "$%"), add(self, form, plain), form[plain]; form += plain + 1, values++)
    if (form[plain] == '%')
      add_json(self, *values, false);
    else
      add(self, values->data, values->size);
}

static void *tick(void *unused) {
  for (;; usleep(TICK_US)) wasmtime_engine_increment_epoch(engine);
  return unused;
}

static void load(const char *path) {
  config_t *config = wasm_config_new();
#define SET_FLAG(name, value) wasmtime_config_##name##_set(config, value);
  FLAGS(SET_FLAG)
  wasmtime_config_max_wasm_stack_set(config, WASM_STACK);
  if (per_call) { /* a slot is used again and again: what a call wrote is zeroed, not given back to the kernel */
    pooling_t *pooling = wasmtime_pooling_allocation_config_new();
#define SET_POOL(name, type, value) wasmtime_pooling_allocation_config_##name##_set(pooling, value);
    POOL(SET_POOL)
    wasmtime_pooling_allocation_strategy_set(config, pooling);
  }
  engine = wasm_engine_new_with_config(config);
  static uint8_t wasm[8 << 20];
  module_t *module;
  FILE *file = fopen(path, "rb");
  if (!file) die(path);
  check(wasmtime_module_new(engine, wasm, fread(wasm, 1, sizeof wasm, file), &module), "compile");
  check(wasmtime_linker_instantiate_pre(wasmtime_linker_new(engine), module, &pre), "link");
}

static bool export(instance *self, const instance_t *raw, const char *name, uint8_t kind, extern_t *found) {
  return wasmtime_instance_export_get(self->context, raw, name, strlen(name), found) && found->kind == kind;
}

static bool worked(fault_t *error, trap_t *trap) {
  if (error) wasmtime_error_delete(error);
  if (trap) wasm_trap_delete(trap);
  return !error && !trap;
}

/* A new instance that knows the hooks of this mask. The fixed input region is the module's: asked for once. */
static bool instantiate(instance *self, uint32_t hooks) {
  trap_t *trap = NULL;
  instance_t raw;
  extern_t found;
  self->store = wasmtime_store_new(engine, NULL, NULL);
  self->context = wasmtime_store_context(self->store);
  wasmtime_store_limiter(self->store, MEMORY_LIMIT, TABLE_ELEMENTS, 1, 2, 1);
  wasmtime_context_set_epoch_deadline(self->context, DEADLINE_TICKS);
  if (!worked(wasmtime_instance_pre_instantiate(pre, self->context, &raw, &trap), trap)) {
    wasmtime_store_delete(self->store);
    return false;
  }
  self->input = kept.input;
  self->input_size = kept.input_size;
  raw_t region[1];
  if (!kept.has && export(self, &raw, "hookline_input", KIND_FUNC, &found)) {
    if (!worked(wasmtime_func_call_unchecked(self->context, &found.of.func, region, 1, &trap), trap)) die("the guest");
    self->input = (uint32_t)((uint64_t)region[0].i64 >> 32);
    self->input_size = (uint32_t)region[0].i64;
  }
  if (!export(self, &raw, "memory", KIND_MEMORY, &found)) die("the guest's memory");
  self->memory = found.of.memory;
  if (!export(self, &raw, "alloc", KIND_FUNC, &found)) die("the guest's alloc");
  self->alloc = found.of.func;
  self->has = 0;
  for (int hook = 0; hook < HOOK_COUNT; hook++)
    if (hooks >> hook & 1 && export(self, &raw, HOOKS[hook], KIND_FUNC, &found)) {
      self->hooks[hook] = found.of.func;
      self->has |= 1u << hook;
    }
  return true;
}

static bool run(instance *self, const func_t *func, raw_t *cells) {
  trap_t *trap = NULL;
  fault_t *error = wasmtime_func_call_unchecked(self->context, func, cells, 2, &trap);
  return worked(error, trap);
}

/* One hook call. The answer points into the guest's memory, until release. */
static bool call(instance *self, int hook, const char *data, size_t size, text *answer) {
  if (!(self->has >> hook & 1)) return false;
  raw_t cells[2];
  uint32_t at = self->input;
  if (size > self->input_size) {
    cells[0].i32 = (int32_t)size;
    if (!run(self, &self->alloc, cells)) return false;
    at = (uint32_t)cells[0].i32;
  }
  uint8_t *memory = wasmtime_memory_data(self->context, &self->memory);
  if ((!at && size) || at + size > wasmtime_memory_data_size(self->context, &self->memory)) return false;
  memcpy(memory + at, data, size);
  cells[0].i32 = (int32_t)at;
  cells[1].i32 = (int32_t)size;
  if (!run(self, &self->hooks[hook], cells)) return false;
  uint64_t start = (uint64_t)cells[0].i64 >> 32, length = cells[0].i64 & 0xffffffff;
  memory = wasmtime_memory_data(self->context, &self->memory); /* again: the hook may have grown it */
  *answer = (text){(const char *)memory + start, length};
  return length <= OUTPUT_LIMIT && start + length <= wasmtime_memory_data_size(self->context, &self->memory);
}

static instance *take(instance *fresh, int hook) {
  if (per_call) return instantiate(fresh, 1u << hook) ? fresh : NULL;
  wasmtime_context_set_epoch_deadline(kept.context, DEADLINE_TICKS);
  return &kept;
}

/* The end of a call; an instance that failed is never used again. */
static void release(instance *self, bool failed) {
  if (!self || (self == &kept && !failed)) return;
  wasmtime_store_delete(self->store);
  if (self == &kept && !instantiate(&kept, ~0u)) die("instantiate");
}

static void plain(conn *self, const char *status) {
  char line[96];
  add(&self->out, line, (size_t)sprintf(line, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status));
}

static bool same(text name, const char *lower) {
  return name.size == strlen(lower) && !strncasecmp(name.data, lower, name.size);
}

/* The string after "name": in JSON, with its quotes; empty where there is none. */
static text string(text from, const char *name) {
  const char *end = from.data + from.size, *at = memmem(from.data, from.size, name, strlen(name));
  if (!at) return (text){"", 0};
  for (at += strlen(name); at < end && (*at == ' ' || *at == ':'); at++) {}
  const char *begin = at++;
  if (begin == end || *begin != '"') return (text){"", 0};
  for (; at < end && *at != '"'; at++)
    if (*at == '\\') at++;
  return at < end ? (text){begin, (size_t)(at + 1 - begin)} : (text){"", 0};
}

static void answer_hook(conn *self, text name, text body) {
  int hook = 0;
  while (hook < HOOK_COUNT && !same(name, HOOKS[hook])) hook++;
  text found, id = string(body, "\"request_id\"");
  instance fresh, *guest = hook < HOOK_COUNT ? take(&fresh, hook) : NULL;
  bool done = guest && call(guest, hook, body.data, body.size, &found);
  if (done) {
    if (found.size < 2) found = (text){"{\"action\":\"default\"}", 20};
    if (!id.size) id = (text){"\"\"", 2};
    char digits[20];
    size_t at = sizeof digits, length = found.size - 1 + plugin.size + id.size + bundle.size;
    do digits[--at] = (char)('0' + length % 10);
    while (length /= 10);
    ADD(&self->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ");
    text parts[] = {{digits + at, sizeof digits - at}, {"\r\n\r\n", 4}, {found.data, found.size - 1},
                    {plugin.data, plugin.size}, id, {bundle.data, bundle.size}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) add(&self->out, parts[i].data, parts[i].size);
  }
  if (!done) plain(self, guest ? "500 Internal Server Error" : "404 Not Found");
  release(guest, !done);
}

static text find(const text (*headers)[2], int count, const char *name) {
  while (count-- > 0)
    if (same(headers[count][0], name)) return headers[count][1];
  return (text){"", 0};
}

/* What nginx's auth_request and Envoy's ext_authz ask: who is it, and may they? */
static void answer_auth(conn *self, text method, text path, const text (*headers)[2], int count) {
  static buffer who, may;
  text told = find(headers, count, "x-original-uri"), verb = find(headers, count, "x-original-method");
  text ip = find(headers, count, "x-real-ip"), id = find(headers, count, "x-request-id"), found;
  if (told.size) path = told;
  if (verb.size) method = verb;
  const char *query = memchr(path.data, '?', path.size);
  if (query) path.size = (size_t)(query - path.data);
  who.size = may.size = 0;
  ADD(&who, "{\"headers\":{");
  for (int i = 0; i < count; i++) {
    add_json(&who, headers[i][0], true);
    join(&who, i + 1 < count ? ":%," : ":%", &headers[i][1]);
  }
  join(&who, "},\"username\":null,\"password\":null,\"client_ip\":%,\"database\":null}", &ip);
  instance fresh, *guest = take(&fresh, AUTHENTICATE);
  bool done = guest && !memmem(path.data, path.size, "/.", 2) && call(guest, AUTHENTICATE, who.data, who.size, &found);
  text name = {"", 0}, name_id = name;
  if (done && memmem(found.data, found.size, "\"success\"", 9)) {
    who.size = 0; /* a copy: the guest's memory may go */
    add(&who, found.data, found.size);
    found.data = who.data;
    name = string(found, "\"username\"");
    name_id = string(found, "\"user_id\"");
  }
  release(guest, !done);
  if (!name.size || !name_id.size) goto refuse;
  join(&may,
       "{\"query\":\"\",\"normalized\":null,\"tables\":[],\"is_read_only\":true,\"hook_context\":{\"request_id\":%,"
       "\"client_id\":null,\"identity\":$,\"database\":null,\"branch\":null,\"attributes\":{\"client_ip\":%}},"
       "\"identity\":{\"user_id\":$,\"username\":$,\"roles\":[],\"tenant_id\":null,\"claims\":{}},"
       "\"action\":%,\"resource\":%}",
       (text[]){id, name, ip, name_id, name, method, path});
  guest = take(&fresh, AUTHORIZE);
  done = guest && call(guest, AUTHORIZE, may.data, may.size, &found);
  bool allowed = done && memmem(found.data, found.size, "\"allow\"", 7);
  release(guest, !done);
  if (!allowed) goto refuse;
  join(&self->out,
       "HTTP/1.1 200 OK\r\nX-Hookline-User: $\r\nX-Hookline-User-Id: $\r\nX-Hookline-Roles: \r\n"
       "X-Hookline-Tenant: \r\nX-Hookline-Request-Id: $\r\nContent-Length: 0\r\n\r\n",
       (text[]){{name.data + 1, name.size - 2}, {name_id.data + 1, name_id.size - 2}, id});
  return;
refuse:
  plain(self, done && !name.size ? "401 Unauthorized" : "403 Forbidden");
}

/* Answer the first request of these bytes; how many it took, 0 where it is not whole. */
static size_t answer(conn *self, const char *data, size_t size) {
  text headers[MOST_HEADERS][2];
  int count = 0;
  size_t length = 0;
  const char *end = memmem(data, size, "\r\n\r\n", 4);
  if (!end && size <= HEAD_LIMIT) return 0;
  if (!end) goto bad;
  const char *line = memchr(data, '\r', size), *target = memchr(data, ' ', (size_t)(line - data));
  const char *version = target ? memchr(target + 1, ' ', (size_t)(line - target - 1)) : NULL;
  if (!version || line - version != 9 || memcmp(version, " HTTP/1.1", 9)) goto bad;
  bool last = false;
  while (line < end) {
    const char *name = line + 2, *stop = memchr(name, '\r', (size_t)(end + 1 - name));
    const char *colon = memchr(name, ':', (size_t)(stop - name)), *value = colon + 1;
    if (!colon || colon == name || count == MOST_HEADERS) goto bad;
    while (value < stop && *value == ' ') value++;
    text key = headers[count][0] = (text){name, (size_t)(colon - name)};
    text told = headers[count++][1] = (text){value, (size_t)(stop - value)};
    if (same(key, "content-length")) {
      if (!told.size || told.size > 9 || strspn(value, "0123456789") != told.size) goto bad;
      length = strtoul(value, NULL, 10);
    } else if (same(key, "connection")) {
      last = same(told, "close");
    } else if (same(key, "transfer-encoding")) {
      goto bad;
    }
    line = stop;
  }
  size_t whole = (size_t)(end + 4 - data) + length;
  if (length > BODY_LIMIT) goto bad;
  if (size < whole) return 0;
  text method = {data, (size_t)(target - data)}, path = {target + 1, (size_t)(version - target - 1)};
  self->closing = last;
  if (path.size > 10 && !memcmp(path.data, "/v1/hooks/", 10) && same(method, "post"))
    answer_hook(self, (text){path.data + 10, path.size - 10}, (text){end + 4, length});
  else if (path.size >= 8 && !memcmp(path.data, "/v1/auth", 8))
    answer_auth(self, method, (text){path.data + 8, path.size - 8}, headers, count);
  else
    plain(self, "404 Not Found");
  return whole;
bad:
  plain(self, "400 Bad Request");
  self->closing = true;
  return 0;
}

static void watch(int epoll, int what, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  epoll_ctl(epoll, what, fd, &event);
}

static void work(int epoll, conn *self, uint32_t events) {
  buffer *in = &self->in, *out = &self->out;
  if (events & EPOLLIN && !self->blocked) {
    room(in, 8 << 10);
    ssize_t got = read(self->fd, in->data + in->size, in->room - in->size);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) goto gone;
    if (got > 0) in->size += (size_t)got;
    size_t at = 0, taken;
    while (at < in->size && !self->closing && (taken = answer(self, in->data + at, in->size - at))) at += taken;
    if (at) memmove(in->data, in->data + at, in->size -= at);
  } else if (events & (EPOLLERR | EPOLLHUP)) {
    goto gone;
  }
  if (self->sent < out->size) {
    ssize_t sent = send(self->fd, out->data + self->sent, out->size - self->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) goto gone;
    if (sent > 0) self->sent += (size_t)sent;
  }
  bool blocked = self->sent < out->size; /* nothing more is read from who does not read */
  if (!blocked) self->sent = out->size = 0;
  if (!blocked && self->closing) goto gone;
  if (blocked != self->blocked) watch(epoll, EPOLL_CTL_MOD, self->fd, blocked ? EPOLLOUT : EPOLLIN);
  self->blocked = blocked;
  return;
gone:
  conns[self->fd] = NULL;
  close(self->fd);
  free(in->data);
  free(out->data);
  free(self);
}

static void welcome(int epoll, int door) {
  int fd = accept4(door, NULL, NULL, SOCK_NONBLOCK), on = 1;
  if (fd < 0 || fd >= MAX_FDS) return (void)close(fd);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (!(conns[fd] = calloc(1, sizeof(conn)))) die("memory");
  conns[fd]->fd = fd;
  watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
}

static int listening(const char *path, int port) {
  struct sockaddr_un local = {.sun_family = AF_UNIX};
  struct sockaddr_in internet = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (path) snprintf(local.sun_path, sizeof local.sun_path, "%s", path);
  if (bind(fd, path ? (void *)&local : (void *)&internet, path ? sizeof local : sizeof internet)) die("bind");
  if (path) chmod(path, 0666); /* nginx's workers are another user's */
  if (listen(fd, 1024)) die("listen");
  return fd;
}

int main(int argc, char **argv) {
  const char *path = NULL, *wasm = NULL, *name = "quick", *version = "0123456789ab";
  int port = 0, option, epoll = epoll_create1(0), unix_door = -1, tcp_door = -1;
  while ((option = getopt(argc, argv, "u:t:w:p:b:f")) != -1) switch (option) {
      case 'u': path = optarg; break;
      case 't': port = atoi(optarg); break;
      case 'w': wasm = optarg; break;
      case 'p': name = optarg; break;
      case 'b': version = optarg; break;
      default: per_call = option == 'f';
    }
  if (!wasm || (!path && !port)) {
    fputs("usage: native -w WASM {-u SOCKET|-t PORT} [-p PLUGIN] [-b BUNDLE] [-f]\n", stderr);
    return 2;
  }
  join(&plugin, ",\"plugin\":%,\"request_id\":", &(text){name, strlen(name)});
  join(&bundle, ",\"bundle\":%}", &(text){version, strlen(version)});
  load(wasm);
  if (!instantiate(&kept, ~0u)) die("instantiate");
  pthread_create(&(pthread_t){0}, NULL, tick, NULL);
  if (path) watch(epoll, EPOLL_CTL_ADD, unix_door = listening(path, 0), EPOLLIN);
  if (port) watch(epoll, EPOLL_CTL_ADD, tcp_door = listening(NULL, port), EPOLLIN);
  for (;;) {
    struct epoll_event events[EVENTS];
    for (int i = 0, ready = epoll_wait(epoll, events, EVENTS, -1); i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == unix_door || fd == tcp_door)
        welcome(epoll, fd);
      else if (conns[fd])
        work(epoll, conns[fd], events[i].events);
    }
  }
}
