// Sends stored bytes through loopback in five ways and prints what each costs the sender in CPU.
//   cc -O1 -o send send.c -lpthread && ./send RUN_BYTES RUNS      e.g. ./send 1024 32
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ROUNDS = 1500, FILE_SIZE = 64 << 20, CHUNK = 1 << 20 };
enum way { SENDFILE, CORKED, GATHER, COPY, ZEROCOPY, WAYS };
static const char *const names[WAYS] = {"sendfile each", "sendfile each, corked", "sendmsg from a map",
                                        "pread each, one send", "sendmsg from a map, MSG_ZEROCOPY"};
static char chunk[CHUNK];

static void *drain(void *socket) {
  static char bytes[1 << 20];
  while (read((long)socket, bytes, sizeof bytes) > 0) {}
  return NULL;
}

static double cpu_us(void) {
  struct rusage use;
  getrusage(RUSAGE_THREAD, &use);
  return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 + use.ru_utime.tv_usec + use.ru_stime.tv_usec;
}

static void set(int socket, int level, int option, int value) {
  if (setsockopt(socket, level, option, &value, sizeof value)) { perror("setsockopt"); exit(1); }
}

// Takes the notes of finished zero-copy sends; answers how many say that the kernel copied after all.
static long take_notes(int socket) {
  long copied = 0;
  char control[128];
  struct msghdr note = {.msg_control = control, .msg_controllen = sizeof control};
  for (; recvmsg(socket, &note, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0; note.msg_controllen = sizeof control) {
    struct sock_extended_err *said = (void *)CMSG_DATA(CMSG_FIRSTHDR(&note));
    if (said->ee_code & SO_EE_CODE_ZEROCOPY_COPIED) copied += said->ee_data - said->ee_info + 1;
  }
  return copied;
}

int main(int count, char **words) {
  if (count != 3) return 2;
  int size = atoi(words[1]), runs = atoi(words[2]);
  if (size < 1 || runs < 1 || 64 < runs || CHUNK < size * runs) return 2;
  int listener = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof at;
  setsockopt(out, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
  bind(listener, (void *)&at, len);
  listen(listener, 1);
  getsockname(listener, (void *)&at, &len);
  if (connect(out, (void *)&at, len)) { perror("connect"); return 1; }
  pthread_t thread;
  pthread_create(&thread, NULL, drain, (void *)(long)accept(listener, NULL, NULL));
  set(out, IPPROTO_TCP, TCP_NODELAY, 1);
  set(out, SOL_SOCKET, SO_ZEROCOPY, 1);
  int file = open("probe-send", O_RDWR | O_CREAT | O_TRUNC, 0600);
  memset(chunk, 7, sizeof chunk);
  for (int i = 0; i < FILE_SIZE / CHUNK; i++)
    if (write(file, chunk, CHUNK) != CHUNK) { perror("write"); return 1; }
  const char *map = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, file, 0);
  for (volatile const char *page = map; page < map + FILE_SIZE; page += 4096) (void)*page;
  long stride = size * 8L, copied = 0;
  for (int pass = 0; pass < 2; pass++) {  // the first pass only warms up
    for (enum way way = 0; way < WAYS; way++) {
      double before = cpu_us();
      off_t from = 0;
      for (int round = 0; round < ROUNDS; round++) {
        struct iovec parts[64];
        if (way == CORKED) set(out, IPPROTO_TCP, TCP_CORK, 1);
        for (int i = 0; i < runs; i++, from = (from + stride) % (FILE_SIZE - CHUNK)) {
          parts[i] = (struct iovec){(char *)map + from, size};
          off_t next = from;
          if (way == SENDFILE || way == CORKED)
            while (next < from + size && sendfile(out, file, &next, from + size - next) > 0) {}
          if (way == COPY && pread(file, chunk + i * size, size, from) != size) return 1;
        }
        struct msghdr gather = {.msg_iov = parts, .msg_iovlen = runs};
        if (way == GATHER) sendmsg(out, &gather, 0);
        if (way == ZEROCOPY) { sendmsg(out, &gather, MSG_ZEROCOPY); copied += take_notes(out); }
        if (way == COPY) send(out, chunk, size * runs, 0);
        if (way == CORKED) set(out, IPPROTO_TCP, TCP_CORK, 0);
      }
      if (pass) printf("%2d x %6d B  %-32s %6.1f us\n", runs, size, names[way], (cpu_us() - before) / ROUNDS);
    }
  }
  printf("copied after all: %ld of %d zero-copy sends\n", copied, 2 * ROUNDS);
  unlink("probe-send");
  exit(0);  // without waiting for the reader
}
