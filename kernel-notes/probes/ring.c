// What the optional features of a ring are worth, one by one, without a broker: CPU time of this thread per
// operation, ways in turn, medians of rounds. Linux 6.15 for all of it; what a kernel lacks is left out.
//   cc -O1 -o ring ring.c -lpthread && ./ring          writes 64 MiB into ./probe-ring and removes it
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 31, BUFFERS = 64, BUFFER = 4096 };
// Names that older headers lack, as flags of io_uring_setup, io_uring_enter and io_uring_register.
enum { SINGLE = 1 << 12, DEFER = 1 << 13, COOP = 1 << 8, DISABLED = 1 << 6, NO_SQARRAY = 1 << 16 };
enum { GETEVENTS = 1, EXT_ARG = 8, REGISTERED_RING = 16, EXT_ARG_REG = 64, NO_IOWAIT = 128 };
enum { FILES = 2, BUFFERS_OP = 0, ENABLE = 12, RING_FDS = 20, PBUF_RING = 22, MEM_REGION = 34 };
enum { FIXED_FILE = 1, BUFFER_SELECT = 32, RECV_MULTISHOT = 2, F_MORE = 2, F_BUFFER = 1 };

struct ring {
  int fd, enter_fd;
  unsigned enter_flags, *sq_tail, sq_mask, *sq_array, *cq_head, *cq_tail, cq_mask;
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  struct { uint64_t sec, nsec; uint32_t min, flags; uint64_t sig; uint32_t sig_size, pad[3]; uint64_t pad2[2]; } *region;
  struct io_uring_buf *buffers;
  char *memory;
  uint16_t tail;
};

static long reg(struct ring *r, unsigned what, void *argument, unsigned count) {
  return syscall(SYS_io_uring_register, r->fd, what, argument, count);
}

static int open_ring(struct ring *r, unsigned flags) {
  struct io_uring_params p = {.flags = flags};
  memset(r, 0, sizeof *r);
  r->fd = r->enter_fd = syscall(SYS_io_uring_setup, 64, &p);
  if (r->fd < 0) return 0;
  char *sq = mmap(0, p.cq_off.cqes + p.cq_entries * 16 + 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
  r->sqes = mmap(0, p.sq_entries * 64, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0x10000000);
  r->sq_tail = (unsigned *)(sq + p.sq_off.tail);
  r->sq_mask = p.sq_entries - 1;
  r->sq_array = flags & NO_SQARRAY ? NULL : (unsigned *)(sq + p.sq_off.array);
  r->cq_head = (unsigned *)(sq + p.cq_off.head);
  r->cq_tail = (unsigned *)(sq + p.cq_off.tail);
  r->cq_mask = p.cq_entries - 1;
  r->cqes = (struct io_uring_cqe *)(sq + p.cq_off.cqes);
  return 1;
}

static struct io_uring_sqe *next(struct ring *r) {
  unsigned tail = *r->sq_tail, at = tail & r->sq_mask;
  struct io_uring_sqe *e = &r->sqes[at];
  memset(e, 0, sizeof *e);
  if (r->sq_array) r->sq_array[at] = at;
  __atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
  return e;
}

static void enter(struct ring *r, unsigned submit, unsigned want) {
  static struct { int64_t sec, nsec; } time = {1, 0};
  static struct { uint64_t sig; uint32_t size, min; uint64_t time; } arg;
  arg.time = (uint64_t)&time;
  unsigned flags = GETEVENTS | r->enter_flags;
  if (!want) syscall(SYS_io_uring_enter, r->enter_fd, submit, 0, flags & ~NO_IOWAIT, NULL, 0);
  else if (r->region) {
    r->region->sec = 1;
    r->region->nsec = 0;
    r->region->flags = 1;
    syscall(SYS_io_uring_enter, r->enter_fd, submit, want, flags | EXT_ARG | EXT_ARG_REG, 0, 64);
  } else syscall(SYS_io_uring_enter, r->enter_fd, submit, want, flags | EXT_ARG, &arg, sizeof arg);
}

static struct io_uring_cqe *take(struct ring *r) {
  unsigned head = *r->cq_head;
  if (head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) { fprintf(stderr, "no completion\n"); exit(1); }
  struct io_uring_cqe *c = &r->cqes[head & r->cq_mask];
  if (c->res < 0) { fprintf(stderr, "completion: %s\n", strerror(-c->res)); exit(1); }
  __atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
  return c;
}

static int register_ring(struct ring *r) {
  struct { uint32_t offset, resv; uint64_t data; } update = {-1, 0, r->fd};
  if (reg(r, RING_FDS, &update, 1) < 0) return 0;
  r->enter_fd = update.offset;
  r->enter_flags |= REGISTERED_RING;
  return 1;
}

static int register_wait(struct ring *r) {
  void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct { uint64_t address, size; uint32_t flags, id; uint64_t offset, resv[4]; } region = {(uint64_t)page, 4096, 1};
  struct { uint64_t region, flags, resv[2]; } use = {(uint64_t)&region, 1};
  if (reg(r, MEM_REGION, &use, 1) < 0) return 0;
  r->region = page;
  return 1;
}

static void offer(struct ring *r, int id) {
  struct io_uring_buf *b = &r->buffers[r->tail++ & (BUFFERS - 1)];
  b->addr = (uint64_t)(r->memory + id * BUFFER);
  b->len = BUFFER;
  b->bid = id;
  __atomic_store_n(&r->buffers[0].resv, r->tail, __ATOMIC_RELEASE);
}

static int register_buffer_ring(struct ring *r) {
  r->buffers = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  r->memory = mmap(0, BUFFERS * BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct { uint64_t address; uint32_t count; uint16_t group, flags; uint64_t resv[3]; } b = {(uint64_t)r->buffers, BUFFERS};
  if (reg(r, PBUF_RING, &b, 1) < 0) return 0;
  for (int id = 0; id < BUFFERS; id++) offer(r, id);
  return 1;
}

static int sockets[2], null_fd, direct_fd;
static char *large;
enum { LARGE = 256 << 10 };

static void push_receive(struct ring *r, int multishot) {
  struct io_uring_sqe *e = next(r);
  e->opcode = IORING_OP_RECV;
  e->fd = sockets[0];
  e->flags = BUFFER_SELECT;
  if (multishot) e->ioprio = RECV_MULTISHOT;
  else e->len = BUFFER;
}

// One way to do one thing: `set` prepares, `run` does it once.
struct way { const char *name; unsigned setup; int (*set)(struct ring *); void (*run)(struct ring *); struct ring ring; double ns[ROUNDS]; };

static int nothing(struct ring *r) { return r->fd; }
static void run_enter(struct ring *r) { enter(r, 0, 0); }
static void run_nop(struct ring *r) { next(r)->opcode = IORING_OP_NOP; enter(r, 1, 1); take(r); }
static int set_no_iowait(struct ring *r) { r->enter_flags |= NO_IOWAIT; return 1; }
static int set_wait(struct ring *r) { int had = register_wait(r); reg(r, ENABLE, NULL, 0); return had; }
static int set_all(struct ring *r) { return set_wait(r) && register_ring(r) && set_no_iowait(r); }
static int set_file(struct ring *r) { return !reg(r, FILES, (int[]){null_fd, direct_fd, sockets[1]}, 3); }
static int set_buffer(struct ring *r) {
  struct iovec whole = {large, LARGE};
  return set_file(r) && !reg(r, BUFFERS_OP, &whole, 1);
}

static void write_op(struct ring *r, int fixed, int fd, int op, unsigned size) {
  struct io_uring_sqe *e = next(r);
  static uint64_t at;
  e->opcode = op;
  e->fd = fixed ? (fd == direct_fd) : fd;
  e->flags = fixed ? FIXED_FILE : 0;
  e->addr = (uint64_t)large;
  e->len = size;
  e->off = fd == direct_fd ? at : 0;
  at = (at + size) % (64 << 20);
  enter(r, 1, 1);
  take(r);
}
static void null_plain(struct ring *r) { write_op(r, 0, null_fd, IORING_OP_WRITE, 1024); }
static void null_fixed(struct ring *r) { write_op(r, 1, null_fd, IORING_OP_WRITE, 1024); }
static void direct_plain(struct ring *r) { write_op(r, 0, direct_fd, IORING_OP_WRITE, LARGE); }
static void direct_file(struct ring *r) { write_op(r, 1, direct_fd, IORING_OP_WRITE, LARGE); }
static void direct_buffer(struct ring *r) { write_op(r, 1, direct_fd, IORING_OP_WRITE_FIXED, LARGE); }
static void small_plain(struct ring *r) { write_op(r, 0, direct_fd, IORING_OP_WRITE, 4096); }
static void small_buffer(struct ring *r) { write_op(r, 1, direct_fd, IORING_OP_WRITE_FIXED, 4096); }

static int set_multishot(struct ring *r) { if (!register_buffer_ring(r)) return 0; push_receive(r, 1); enter(r, 1, 0); return 1; }
static void receive(struct ring *r, int multishot) {
  char byte = 1;
  if (!multishot) { push_receive(r, 0); enter(r, 1, 0); }
  if (write(sockets[1], &byte, 1) != 1) exit(1);
  enter(r, 0, 1);
  offer(r, take(r)->flags >> 16);
}
// A server arms the next receive in the call in which it waits for it; here the byte comes between the two.
static void receive_multi(struct ring *r) { receive(r, 1); }
static void receive_single(struct ring *r) { receive(r, 0); }

static void *idle(void *unused) { pause(); return unused; }

static double cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_size(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }

static void compare(const char *what, int operations, struct way *ways, int count) {
  printf("%s\n", what);
  for (int w = 0; w < count; w++) {
    struct way *way = &ways[w];
    if (!open_ring(&way->ring, way->setup) || !way->set(&way->ring)) way->run = NULL;
  }
  for (int round = 0; round < ROUNDS; round++)
    for (int w = 0; w < count; w++) {
      struct way *way = &ways[(w + round) % count];
      if (!way->run) continue;
      double start = cpu_ns();
      for (int i = 0; i < operations; i++) way->run(&way->ring);
      way->ns[round] = (cpu_ns() - start) / operations;
    }
  for (int w = 0; w < count; w++) {
    struct way *way = &ways[w];
    if (!way->run) { printf("  %-44s not on this kernel\n", way->name); continue; }
    qsort(way->ns, ROUNDS, sizeof(double), by_size);
    printf("  %-44s %8.0f ns  (quartiles %.0f and %.0f)\n", way->name, way->ns[ROUNDS / 2], way->ns[ROUNDS / 4], way->ns[ROUNDS * 3 / 4]);
    close(way->ring.fd);
  }
}
#define COMPARE(what, operations, ...) do { struct way ways[] = {__VA_ARGS__}; compare(what, operations, ways, sizeof ways / sizeof *ways); } while (0)

int main(void) {
  pthread_t thread;
  unsigned one = SINGLE | DEFER;
  pthread_create(&thread, NULL, idle, NULL);  // With one thread, descriptors are looked up without counting.
  null_fd = open("/dev/null", O_WRONLY);
  large = mmap(0, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(large, 7, LARGE);
  int fill = open("probe-ring", O_CREAT | O_RDWR | O_TRUNC, 0600);
  for (int i = 0; i < 256; i++) if (write(fill, large, LARGE) != LARGE) return 1;
  fsync(fill);
  direct_fd = open("probe-ring", O_WRONLY | O_DIRECT);
  unlink("probe-ring");
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) return 1;
  COMPARE("enter, nothing to do", 20000, {"by descriptor", one, nothing, run_enter}, {"by its place", one, register_ring, run_enter});
  COMPARE("submit a NOP and wait for it", 20000, {"by descriptor, time copied", one, nothing, run_nop},
          {"the same, NO_IOWAIT", one, set_no_iowait, run_nop}, {"by place", one, register_ring, run_nop},
          {"registered wait", one | DISABLED, set_wait, run_nop},
          {"by place, registered wait, NO_IOWAIT", one | DISABLED, set_all, run_nop},
          {"by descriptor, NO_SQARRAY", one | NO_SQARRAY, nothing, run_nop});
  COMPARE("write 1 KiB to /dev/null", 20000, {"by descriptor", one, nothing, null_plain}, {"registered file", one, set_file, null_fixed});
  if (direct_fd < 0) printf("no O_DIRECT here\n");
  else {
    COMPARE("direct write of 4 KiB", 200, {"by descriptor", one, nothing, small_plain}, {"registered file and buffer", one, set_buffer, small_buffer});
    COMPARE("direct write of 256 KiB", 60, {"by descriptor", one, nothing, direct_plain}, {"registered file", one, set_file, direct_file},
            {"registered file and buffer", one, set_buffer, direct_buffer});
  }
  COMPARE("receive a byte that comes after the receive was armed", 10000, {"single shot, DEFER_TASKRUN", one, register_buffer_ring, receive_single},
          {"single shot, COOP_TASKRUN", COOP, register_buffer_ring, receive_single}, {"single shot", 0, register_buffer_ring, receive_single});
  // One way at a time: each keeps the only socket armed.
  COMPARE("the same", 10000, {"multishot, DEFER_TASKRUN", one, set_multishot, receive_multi});
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) return 1;
  COMPARE("the same", 10000, {"multishot, COOP_TASKRUN", COOP, set_multishot, receive_multi});
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) return 1;
  COMPARE("the same", 10000, {"multishot", 0, set_multishot, receive_multi});
  return 0;
}
