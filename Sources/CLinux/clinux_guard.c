// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>

static void close_between(int first, int last) {
  if (first > last) return;
  if (syscall(SYS_close_range, first, last, 0) == 0) return;
  for (int fd = first; fd <= last && fd < 4096; fd++) close(fd); /* Before Linux 5.9. */
}

void clinux_become_keeper(const char *task_name, const int *kept, int count) {
  setsid();
  /* What a fault of its own raises keeps its effect, and SIGPWR waits until it is asked for. */
  static const int kept_signals[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS};
  sigset_t waiting;
  sigemptyset(&waiting);
  sigaddset(&waiting, SIGPWR);
  sigprocmask(SIG_SETMASK, &waiting, NULL);
  for (int number = 1; number <= 64; number++) {
    int is_kept = number == SIGPWR;
    for (size_t i = 0; i < sizeof kept_signals / sizeof *kept_signals; i++)
      is_kept |= number == kept_signals[i];
    /* The kernel's own structure, the handler first: libc refuses the signals that it uses itself. */
    unsigned long ignored[8] = {(unsigned long)SIG_IGN};
    if (!is_kept) syscall(SYS_rt_sigaction, number, ignored, NULL, 8);
  }
  char *name = (char *)clinux_argument(0);
  if (name && name[0]) name[0] = '@';
  prctl(PR_SET_NAME, task_name);
  int next = 0;
  for (int i = 0; i < count; i++) {
    close_between(next, kept[i] - 1);
    next = kept[i] + 1;
  }
  close_between(next, 0x7fffffff);
  /* The lowest numbers are free now, unless one of them is kept: open(2) fills them in order. */
  for (int fd; (fd = open("/dev/null", O_RDWR)) >= 0;)
    if (fd > 2) {
      close(fd);
      break;
    }
  if (chdir("/") < 0) return;
}

int clinux_run_from_memory(void) {
  static const char path[] = "/proc/self/exe";
  enum { ramfs = 0x858458f6, tmpfs = 0x01021994 }; /* Of a memfd, too. Source: linux/magic.h */
  struct statfs place;
  char *words[65] = {0};
  if (statfs(path, &place) < 0) return -errno;
  if ((uint32_t)place.f_type == ramfs || (uint32_t)place.f_type == tmpfs) return 0;
  if (clinux_argument_count() > 64) return -E2BIG;
  for (int i = 0; i < clinux_argument_count(); i++) words[i] = (char *)clinux_argument(i);
  int from = open(path, O_RDONLY | O_CLOEXEC);
  int to = (int)syscall(SYS_memfd_create, "rootlink", 1 /* MFD_CLOEXEC */);
  ssize_t copied = from < 0 || to < 0 ? -1 : 1;
  while (copied > 0) copied = sendfile(to, from, NULL, 1 << 20);
  if (copied == 0) syscall(SYS_execveat, to, "", words, environ, AT_EMPTY_PATH);
  int error = errno;
  if (from >= 0) close(from);
  if (to >= 0) close(to);
  return -error;
}

static int is_strict;
static struct clinux_allocation_counts counts;
void clinux_read_allocation_counts(struct clinux_allocation_counts *into) { *into = counts; }

int clinux_seal_strictly(void) {
  is_strict = 1;
  /* Only the number of the call is looked at: the filter is for tests on this machine's ABI. */
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef SYS_open
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_open, 4, 0),
#else
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 4, 0),
#endif
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) < 0
             ? -errno : 0;
}

#if defined __GLIBC__ && !defined CLINUX_GUARDS_ALLOCATION
int clinux_allocation_is_guarded(void) { return 0; }
int clinux_seal_allocation(size_t byte_count) { return byte_count == 0; }
void clinux_bare_task(void) {}
#else
/* The reserve: blocks of 2^k bytes with a list of the free ones a size, cut from one mapping. Each
   begins with 16 bytes that say its size; what is handed out is aligned to 16 or more. */
enum { smallest = 5, sizes = 28, head = 16 };
struct block { size_t size_index; struct block *next_free; };
static struct block *free_blocks[sizes];
static unsigned char *reserve, *reserve_end, *reserve_next;
static volatile char lock;
static _Thread_local int is_bare;

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_aligned_alloc(size_t, size_t);
int __real_posix_memalign(void **, size_t, size_t);
void __real_free(void *);

int clinux_allocation_is_guarded(void) { return 1; }
void clinux_bare_task(void) { is_bare = 1; }
int clinux_seal_allocation(size_t byte_count) {
  unsigned char *memory = mmap(NULL, byte_count, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return -errno;
  if (mlock(memory, byte_count) < 0) {
    int error = errno;
    munmap(memory, byte_count);
    return -error;
  }
  reserve_next = memory;
  reserve_end = memory + byte_count;
  __atomic_store_n(&reserve, memory, __ATOMIC_RELEASE);
  return 0;
}

static void complain(const char *what) {
  if (write(2, what, strlen(what)) < 0) return;
  abort();
}
/* Counts an allocation; what the reserve has for it, or NULL. */
static void *take(size_t alignment, size_t count) {
  size_t index = smallest, extra = alignment > head ? alignment : head;
  if (count > ((size_t)1 << (sizes - 1)) - extra) index = sizes;
  while (index < sizes && ((size_t)1 << index) < count + extra) index++;
  unsigned char *found = NULL;
  while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE)) {
  }
  counts.after_seal++;
  if (is_bare) counts.in_bare_task++;
  if (index < sizes) {
    if (free_blocks[index]) {
      found = (unsigned char *)free_blocks[index];
      free_blocks[index] = free_blocks[index]->next_free;
    } else if ((size_t)(reserve_end - reserve_next) >= (size_t)1 << index) {
      found = reserve_next;
      reserve_next += (size_t)1 << index;
      counts.reserve_used = (uint64_t)(reserve_next - reserve);
    }
  }
  if (!found) counts.from_system++;
  __atomic_clear(&lock, __ATOMIC_RELEASE);
  if (is_strict && is_bare) complain("rootlink: a task that must not allocate has allocated\n");
  if (is_strict && !found) complain("rootlink: the reserve of memory is used up\n");
  if (!found) return NULL;
  unsigned char *given = found + head;
  if (alignment > head)
    given = (unsigned char *)(((uintptr_t)found + alignment) & ~(uintptr_t)(alignment - 1));
  struct block *mark = (struct block *)(given - head);
  *mark = (struct block){index, (struct block *)found};
  return given;
}
static int is_sealed(void) { return __atomic_load_n(&reserve, __ATOMIC_ACQUIRE) != NULL; }
static int is_ours(const void *memory) {
  return is_sealed() && (const unsigned char *)memory >= reserve
         && (const unsigned char *)memory < reserve_end;
}

void *__wrap_malloc(size_t count) {
  void *taken = is_sealed() ? take(head, count) : NULL;
  return taken ? taken : __real_malloc(count);
}
void *__wrap_calloc(size_t count, size_t size) {
  size_t total;
  if (__builtin_mul_overflow(count, size, &total)) return NULL;
  void *taken = is_sealed() ? take(head, total) : NULL;
  return taken ? memset(taken, 0, total) : __real_calloc(count, size);
}
void *__wrap_aligned_alloc(size_t alignment, size_t count) {
  void *taken = is_sealed() ? take(alignment, count) : NULL;
  return taken ? taken : __real_aligned_alloc(alignment, count);
}
int __wrap_posix_memalign(void **into, size_t alignment, size_t count) {
  void *taken = is_sealed() ? take(alignment, count) : NULL;
  if (!taken) return __real_posix_memalign(into, alignment, count);
  *into = taken;
  return 0;
}
void __wrap_free(void *memory) {
  if (!is_ours(memory)) {
    __real_free(memory);
    return;
  }
  struct block mark = *(struct block *)((unsigned char *)memory - head);
  struct block *whole = mark.next_free;
  while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE)) {
  }
  whole->next_free = free_blocks[mark.size_index];
  free_blocks[mark.size_index] = whole;
  __atomic_clear(&lock, __ATOMIC_RELEASE);
}
void *__wrap_realloc(void *memory, size_t count) {
  if (!memory) return __wrap_malloc(count);
  if (!is_ours(memory)) {
    if (!is_sealed()) return __real_realloc(memory, count);
    /* What libc's own block holds cannot be asked for: it grows where it is, and that counts. */
    __wrap_free(take(head, 0));
    return __real_realloc(memory, count);
  }
  struct block mark = *(struct block *)((unsigned char *)memory - head);
  size_t room = ((size_t)1 << mark.size_index)
                - (size_t)((unsigned char *)memory - (unsigned char *)mark.next_free);
  if (count <= room) return memory;
  void *grown = __wrap_malloc(count);
  if (!grown) return NULL;
  memcpy(grown, memory, room);
  __wrap_free(memory);
  return grown;
}
#endif
