// SPDX-License-Identifier: Apache-2.0
// What a server costs, from /proc, its processes' clocks and the processor's counters.
//
// The clock of a process (clock_getcpuclockid) counts nanoseconds and includes its ended threads;
// /proc/PID/stat would round to a hundredth of a second, which is too coarse where a process serves
// one of 200 clients. Children that ended are in their parent's cutime and cstime.

#define _GNU_SOURCE
#include "usage.h"

#include <dirent.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct process {
  pid_t pid, parent;
  uint64_t ended_children_ticks;
  bool counted;
};

static struct process *processes;
static size_t process_count, process_room, tree_count;

// Reads a small file below /proc. The number of bytes, with a zero behind them; 0 on any failure.
static size_t slurp(const char *path, char *into, size_t room) {
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  size_t count = fread(into, 1, room - 1, file);
  fclose(file);
  into[count] = 0;
  return count;
}

static void read_stat(pid_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  if (!slurp(path, text, sizeof text)) return;
  char *rest = strrchr(text, ')');  // The name before it may hold anything.
  int parent;
  unsigned long long user, system;
  if (!rest || sscanf(rest + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %llu %llu",
                      &parent, &user, &system) != 3)
    return;
  if (process_count == process_room) {
    size_t room = process_room ? 2 * process_room : 256;
    struct process *grown = realloc(processes, room * sizeof *grown);
    if (!grown) return;
    processes = grown;
    process_room = room;
  }
  processes[process_count++] =
      (struct process){.pid = pid, .parent = parent, .ended_children_ticks = user + system};
}

// Fills `processes` and marks those of the tree below `root`.
static void find_tree(pid_t root) {
  process_count = tree_count = 0;
  DIR *directory = opendir("/proc");
  if (!directory) return;
  for (struct dirent *entry; (entry = readdir(directory));)
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9') read_stat(atoi(entry->d_name));
  closedir(directory);

  for (bool found = true; found;) {
    found = false;
    for (size_t i = 0; i < process_count; i++) {
      struct process *one = &processes[i];
      if (one->counted) continue;
      bool belongs = one->pid == root;
      for (size_t j = 0; j < process_count && !belongs; j++)
        belongs = processes[j].counted && processes[j].pid == one->parent;
      if (!belongs) continue;
      one->counted = found = true;
      tree_count++;
    }
  }
}

static uint64_t cpu_ns_of(pid_t pid) {
  clockid_t clock;
  struct timespec time;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

// Memory of a process's own in bytes; a page that several have after a fork counts in shares.
static uint64_t anon_of(pid_t pid) {
  char path[64], text[4096];
  snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
  slurp(path, text, sizeof text);
  char *line = strstr(text, "Pss_Anon:");
  if (!line) {
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    slurp(path, text, sizeof text);
    line = strstr(text, "RssAnon:");
  }
  return line ? strtoull(strchr(line, ':') + 1, NULL, 10) * 1024 : 0;
}

bool usage_of(pid_t root, struct usage *usage) {
  memset(usage, 0, sizeof *usage);
  find_tree(root);
  usage->processes = (unsigned)tree_count;
  uint64_t tick_ns = 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);
  for (size_t i = 0; i < process_count; i++) {
    if (!processes[i].counted) continue;
    usage->cpu_ns += cpu_ns_of(processes[i].pid) + processes[i].ended_children_ticks * tick_ns;
    usage->anon_bytes += anon_of(processes[i].pid);
  }
  return usage->processes > 0;
}

uint64_t usage_anon_quick(void) {
  if (tree_count > 16) return 0;
  uint64_t bytes = 0, page = (uint64_t)sysconf(_SC_PAGESIZE);
  for (size_t i = 0; i < process_count; i++) {
    char path[64], text[256];
    unsigned long long resident, shared;
    if (!processes[i].counted) continue;
    snprintf(path, sizeof path, "/proc/%d/statm", processes[i].pid);
    if (slurp(path, text, sizeof text) && sscanf(text, "%*u %llu %llu", &resident, &shared) == 2)
      bytes += (resident - shared) * page;
  }
  return bytes;
}

static int *counters;
static size_t counter_count;

void usage_threads(pid_t root, void (*visit)(pid_t thread)) {
  find_tree(root);
  for (size_t i = 0; i < process_count; i++) {
    char path[64];
    if (!processes[i].counted) continue;
    snprintf(path, sizeof path, "/proc/%d/task", processes[i].pid);
    DIR *tasks = opendir(path);
    if (!tasks) continue;
    for (struct dirent *entry; (entry = readdir(tasks));)
      if (entry->d_name[0] != '.') visit(atoi(entry->d_name));
    closedir(tasks);
  }
}

static bool all_counted;

static void count_thread(pid_t thread) {
  struct perf_event_attr attributes = {
      .size = sizeof attributes,
      .type = PERF_TYPE_HARDWARE,
      .config = PERF_COUNT_HW_INSTRUCTIONS,
      .inherit = 1,
  };
  long descriptor =
      syscall(SYS_perf_event_open, &attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
  int *grown = descriptor < 0 ? NULL : realloc(counters, (counter_count + 1) * sizeof *grown);
  if (!grown) {
    all_counted = false;
    return;
  }
  counters = grown;
  counters[counter_count++] = (int)descriptor;
}

bool instructions_start(pid_t root) {
  all_counted = true;
  usage_threads(root, count_thread);
  return all_counted && counter_count > 0;
}

uint64_t instructions_stop(void) {
  uint64_t sum = 0, count;
  for (size_t i = 0; i < counter_count; i++)
    if (read(counters[i], &count, sizeof count) == sizeof count) sum += count;
  return sum;
}
