/* The core of the load generator: a closed loop, or an offered rate, over keep-alive connections.
 *
 * In C, because a generator that is slower than its server measures itself. bench/load.py starts it, once for each
 * measurement, gives it the requests on standard input (each as its length, a line break and its bytes) and reads one
 * line of JSON. It judges nothing: distinct answers are counted with their bodies, and bench/load.py judges those.
 *
 * A closed loop has -d requests in flight on each connection and sends the next when an answer is whole. With -r,
 * calls are due at fixed times, whatever is answered; a call's time runs from when it was due. SIGTERM ends it.
 *
 * With -p it polls and never sleeps: for a core of its own. Else each answer of a slow server wakes it, which costs
 * that server an interrupt to another core, on a virtual machine more than the answer; a quick server pays nothing.
 *
 * cc -O2 -o load load.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ASKS = 64, MOST_ANSWERS = 1024, MOST_DEPTH = 256, SUB = 128, BUCKETS = 48 * SUB, EVENTS = 256 };
#define SILENCE_NS 10000000000LL /* an answer that takes longer is none */

typedef struct { char *data; size_t size; } bytes;
typedef struct { int ask, status; bytes body; uint64_t count; } answer;
typedef struct {
  int fd, asked, answered, under_way, due_at;
  bool blocked;
  int64_t begun[MOST_DEPTH];
  char *in, *out;
  size_t in_size, in_room, out_at, out_size, out_room;
} conn;

static bytes asks[MOST_ASKS];
static int ask_count, depth = 1, epoll;
static answer answers[MOST_ANSWERS];
static int answer_count, last[MOST_ASKS];
static uint64_t histogram[BUCKETS], calls, other, lost, sent_calls, left = UINT64_MAX;
static int64_t slowest, started, begun_at, interval;
static conn *conns;
static conn **idle; /* with an offered rate: who has nothing to do */
static int idle_count;
static bool polls;
static int64_t worked; /* the time that was not spent waiting */
static volatile sig_atomic_t stopped;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void stop(int signal) {
  (void)signal;
  stopped = 1;
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Buckets of 1/128 of each doubling: a quantile is right within 0.8 %. */
static int bucket(uint64_t ns) {
  if (ns < 2 * SUB) return (int)ns;
  int shift = 56 - __builtin_clzll(ns); /* leaves eight bits */
  int found = (shift + 1) * SUB + (int)((ns >> shift) - SUB);
  return found < BUCKETS ? found : BUCKETS - 1;
}

static double middle(int at) {
  if (at < 2 * SUB) return at;
  int shift = at / SUB - 1;
  return ((double)(at % SUB + SUB) + 0.5) * (double)(1ULL << shift);
}

static double quantile(double share) {
  uint64_t seen = 0, wanted = (uint64_t)((double)calls * share);
  for (int at = 0; at < BUCKETS; at++)
    if ((seen += histogram[at]) > wanted) return middle(at) / 1000;
  return (double)slowest / 1000;
}

static char *room(char *data, size_t *has, size_t wanted) {
  if (wanted <= *has) return data;
  *has = wanted * 2;
  if (!(data = realloc(data, *has))) die("memory");
  return data;
}

static void ask(conn *self, int64_t since) {
  bytes *request = &asks[self->asked % ask_count];
  self->out = room(self->out, &self->out_room, self->out_size + request->size);
  memcpy(self->out + self->out_size, request->data, request->size);
  self->out_size += request->size;
  self->begun[self->asked++ % MOST_DEPTH] = since;
  self->under_way++;
  sent_calls++;
  left--;
}

static void flush(conn *self) {
  while (self->out_at < self->out_size) {
    ssize_t sent = send(self->fd, self->out + self->out_at, self->out_size - self->out_at, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) break; /* full: epoll says when there is room; broken: the next read says so */
    self->out_at += (size_t)sent;
  }
  bool blocked = self->out_at < self->out_size;
  if (!blocked) self->out_at = self->out_size = 0;
  if (blocked != self->blocked) {
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = self};
    epoll_ctl(epoll, EPOLL_CTL_MOD, self->fd, &event);
    self->blocked = blocked;
  }
}

static void judge(int which, int status, const char *body, size_t size) {
  answer *found = &answers[last[which]];
  if (found->ask == which && found->status == status && found->body.size == size && found->count &&
      !memcmp(found->body.data, body, size)) {
    found->count++;
    return;
  }
  for (int i = 0; i < answer_count; i++)
    if (answers[i].ask == which && answers[i].status == status && answers[i].body.size == size &&
        !memcmp(answers[i].body.data, body, size)) {
      answers[i].count++;
      last[which] = i;
      return;
    }
  if (answer_count == MOST_ANSWERS) {
    other++;
    return;
  }
  last[which] = answer_count;
  answer *new = &answers[answer_count++];
  *new = (answer){which, status, {malloc(size + 1), size}, 1};
  memcpy(new->body.data, body, size);
}

/* The size of the whole answer at the beginning of these bytes; 0 where it is not whole, -1 where it is none. */
static ssize_t whole(const char *data, size_t size, size_t *head) {
  const char *end = memmem(data, size, "\r\n\r\n", 4);
  if (!end) return 0;
  *head = (size_t)(end + 4 - data);
  const char *line = data;
  while ((line = memchr(line, '\n', (size_t)(end - line)))) {
    line++;
    if (end - line > 15 && (*line | 0x20) == 'c' && !strncasecmp(line, "content-length:", 15)) {
      size_t length = strtoul(line + 15, NULL, 10);
      return *head + length <= size ? (ssize_t)(*head + length) : 0;
    }
  }
  return -1;
}

static bool more(void) { return left && !stopped; }

static void lose(conn *self) {
  lost += (uint64_t)(self->under_way ? self->under_way : 1);
  sent_calls -= (uint64_t)self->under_way;
  close(self->fd);
  self->fd = -1;
  stopped = 1; /* what follows would be measured with fewer connections */
}

static void work(conn *self) {
  self->in = room(self->in, &self->in_room, self->in_size + (16 << 10));
  ssize_t got = read(self->fd, self->in + self->in_size, self->in_room - self->in_size);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    lose(self);
    return;
  }
  self->in_size += (size_t)got;
  size_t at = 0, head = 0;
  ssize_t size = 0;
  int64_t time = now();
  while (self->under_way && (size = whole(self->in + at, self->in_size - at, &head)) > 0) {
    int64_t taken = time - self->begun[self->answered % MOST_DEPTH];
    judge(self->answered++ % ask_count, atoi(self->in + at + 9), self->in + at + head, (size_t)size - head);
    at += (size_t)size;
    self->under_way--;
    sent_calls--;
    calls++;
    histogram[bucket((uint64_t)taken)]++;
    if (taken > slowest) slowest = taken;
    if (interval)
      idle[idle_count++] = self;
    else if (more())
      ask(self, time);
  }
  if (size < 0 || (!self->under_way && at < self->in_size)) {
    lose(self);
    return;
  }
  if (at) memmove(self->in, self->in + at, self->in_size -= at);
  if (self->out_size) flush(self);
}

static void connect_all(int count, const char *path, int port) {
  struct sockaddr_un local = {.sun_family = AF_UNIX};
  struct sockaddr_in internet = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (path) strncpy(local.sun_path, path, sizeof local.sun_path - 1);
  for (int i = 0; i < count; i++) {
    conn *self = &conns[i];
    int on = 1;
    self->fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    if (connect(self->fd, path ? (void *)&local : (void *)&internet, path ? sizeof local : sizeof internet))
      die("connect");
    fcntl(self->fd, F_SETFL, O_NONBLOCK);
    setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = self};
    epoll_ctl(epoll, EPOLL_CTL_ADD, self->fd, &event);
    self->asked = self->answered = i; /* each begins at another of the asks */
    for (int k = 0; k < depth && interval; k++) idle[idle_count++] = self;
  }
}

static void run(int count, double seconds) {
  struct epoll_event events[EVENTS];
  int64_t end = seconds > 0 ? started + (int64_t)(seconds * 1e9) : INT64_MAX, heard = started, time;
  for (int i = 0; i < count && !interval; i++) {
    for (int k = 0; k < depth && more(); k++) ask(&conns[i], now());
    flush(&conns[i]);
  }
  while (more() || sent_calls) {
    if ((time = now()) >= end) break;
    if (time - heard > SILENCE_NS) break;
    while (interval && idle_count && more() && begun_at <= time) {
      conn *self = idle[--idle_count];
      if (self->fd < 0) continue;
      ask(self, begun_at);
      flush(self);
      begun_at += interval;
    }
    int ready = epoll_wait(epoll, events, EVENTS, polls ? 0 : 100);
    if (ready > 0) heard = now();
    for (int i = 0; i < ready; i++) {
      conn *self = events[i].data.ptr;
      if (self->fd < 0) continue;
      if (events[i].events & EPOLLOUT) flush(self);
      if (events[i].events & ~(uint32_t)EPOLLOUT) work(self);
    }
    if (ready > 0) worked += now() - time;
  }
}

/* What was asked is waited for, and not counted, where the time is over. */
static void settle(void) {
  struct epoll_event events[EVENTS];
  uint64_t counted = calls;
  int64_t until = now() + SILENCE_NS;
  stopped = 1;
  while (sent_calls && now() < until) {
    int ready = epoll_wait(epoll, events, EVENTS, 100);
    for (int i = 0; i < ready; i++) {
      conn *self = events[i].data.ptr;
      if (self->fd >= 0) flush(self);
      if (self->fd >= 0) work(self);
    }
  }
  calls = counted;
}

static void report(double seconds) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  if (polls && (double)worked / 1e9 < cpu) cpu = (double)worked / 1e9;
  printf("{\"calls\":%lu,\"seconds\":%.6f,\"cpu\":%.6f,\"p50_us\":%.2f,\"p99_us\":%.2f,", calls, seconds, cpu,
         quantile(0.5), quantile(0.99));
  printf("\"p999_us\":%.2f,\"max_us\":%.2f,", quantile(0.999), (double)slowest / 1000);
  printf("\"lost\":%lu,\"silent\":%lu,\"other\":%lu,\"answers\":[", lost, sent_calls, other);
  for (int i = 0; i < answer_count; i++) {
    printf("%s[%d,%d,%lu,\"", i ? "," : "", answers[i].ask, answers[i].status, answers[i].count);
    for (size_t k = 0; k < answers[i].body.size; k++) printf("%02x", (unsigned char)answers[i].body.data[k]);
    printf("\"]");
  }
  printf("]}\n");
}

int main(int argc, char **argv) {
  const char *path = NULL;
  int port = 0, count = 8, option;
  double seconds = 0, rate = 0;
  while ((option = getopt(argc, argv, "u:t:c:s:n:d:r:p")) != -1) switch (option) {
      case 'u': path = optarg; break;
      case 't': port = atoi(optarg); break;
      case 'c': count = atoi(optarg); break;
      case 's': seconds = atof(optarg); break;
      case 'n': left = strtoull(optarg, NULL, 10); break;
      case 'd': depth = atoi(optarg); break;
      case 'r': rate = atof(optarg); break;
      case 'p': polls = true; break;
      default: count = 0;
    }
  if ((!path && !port) || count < 1 || depth < 1 || depth > MOST_DEPTH) {
    fputs("usage: load {-u SOCKET|-t PORT} [-c CONNECTIONS] [-d DEPTH] [-s S] [-n CALLS] [-r CALLS/S] [-p]\n", stderr);
    return 2;
  }
  size_t size;
  while (ask_count < MOST_ASKS && scanf("%zu", &size) == 1 && getchar() == '\n') {
    asks[ask_count] = (bytes){malloc(size), size};
    if (fread(asks[ask_count++].data, 1, size, stdin) != size) die("standard input");
  }
  if (!ask_count) die("no requests on standard input");
  signal(SIGTERM, stop);
  signal(SIGPIPE, SIG_IGN);
  epoll = epoll_create1(0);
  conns = calloc((size_t)count, sizeof *conns);
  idle = calloc((size_t)count * (size_t)depth, sizeof *idle);
  interval = rate > 0 ? (int64_t)(1e9 / rate) : 0;
  polls |= interval > 0;
  connect_all(count, path, port);
  started = begun_at = now();
  run(count, seconds);
  seconds = (double)(now() - started) / 1e9;
  settle();
  report(seconds);
  return 0;
}
