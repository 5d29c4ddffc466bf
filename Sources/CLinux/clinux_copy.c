// SPDX-License-Identifier: Apache-2.0
// A copy whose page faults may fail: a signal handler takes it to an error instead of the end of the
// process. Only addresses of the copy itself are looked at, so every other fault is what it was.
#include "CLinux.h"
#include <signal.h>
#include <ucontext.h>

#if defined(__x86_64__)

__asm__(
    ".text\n"
    ".type clinux_copy_guarded, @function\n"
    ".globl clinux_copy_guarded\n"
    "clinux_copy_guarded:\n"
    "  movq %rdx, %rcx\n"
    "  xorl %eax, %eax\n"
    "clinux_copy_first:\n"
    "  rep movsb\n"
    "clinux_copy_last:\n"
    "  ret\n"
    "clinux_copy_failed:\n"
    "  movl $-14, %eax\n" /* EFAULT */
    "  ret\n"
    ".size clinux_copy_guarded, . - clinux_copy_guarded\n");

extern const char clinux_copy_first[] __attribute__((visibility("hidden")));
extern const char clinux_copy_last[] __attribute__((visibility("hidden")));
extern const char clinux_copy_failed[] __attribute__((visibility("hidden")));

static struct sigaction before;

static void recover(int number, siginfo_t *information, void *context) {
  (void)information;
  greg_t *instruction = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
  if (*instruction >= (greg_t)clinux_copy_first && *instruction < (greg_t)clinux_copy_last)
    *instruction = (greg_t)clinux_copy_failed;
  else
    sigaction(number, &before, NULL); /* It faults again, and then that is what it always was. */
}

int clinux_guard_copies(void) {
  struct sigaction action = {.sa_sigaction = recover, .sa_flags = SA_SIGINFO};
  sigfillset(&action.sa_mask);
  return sigaction(SIGBUS, &action, &before) < 0 ? -errno : 0;
}

#else

int clinux_copy_guarded(void *to, const void *from, size_t count) {
  (void)to, (void)from, (void)count;
  return -ENOSYS;
}
int clinux_guard_copies(void) { return -ENOSYS; }

#endif
