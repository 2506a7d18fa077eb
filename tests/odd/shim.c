// A library to preload: a file system without flock, whose deleted files stay under another name while they are open, as on
// NFS; and a clock that jumps back by a day as soon as the file CLOCK_JUMP_1 exists, and again with CLOCK_JUMP_2 (environment).
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int flock(int descriptor, int operation) {
  (void)descriptor, (void)operation;
  errno = getpid() % 2 ? ENOLCK : EOPNOTSUPP;
  return -1;
}

// Whether this process has the file open.
static int is_open(const struct stat *file) {
  DIR *descriptors = opendir("/proc/self/fd");
  struct dirent *entry;
  struct stat other;
  int found = 0;
  while (descriptors && (entry = readdir(descriptors)))
    if (entry->d_name[0] != '.' && fstat(atoi(entry->d_name), &other) == 0)
      found |= other.st_dev == file->st_dev && other.st_ino == file->st_ino;
  if (descriptors) closedir(descriptors);
  return found;
}

static int unlink_as_nfs(int folder, const char *name, int flags) {
  int (*real)(int, const char *, int) = dlsym(RTLD_NEXT, "unlinkat");
  struct stat file;
  if (!(flags & AT_REMOVEDIR) && fstatat(folder, name, &file, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(file.st_mode) && is_open(&file)) {
    char hidden[PATH_MAX];
    const char *last = strrchr(name, '/');
    snprintf(hidden, sizeof hidden, "%.*s.nfs%016llx", last ? (int)(last - name + 1) : 0, name, (unsigned long long)file.st_ino);
    return renameat(folder, name, folder, hidden);
  }
  return real(folder, name, flags);
}

int unlink(const char *name) { return unlink_as_nfs(AT_FDCWD, name, 0); }
int unlinkat(int folder, const char *name, int flags) { return unlink_as_nfs(folder, name, flags); }

static int exists(const char *variable) {
  const char *name = getenv(variable);
  int before = errno, found = name && access(name, F_OK) == 0;
  errno = before;
  return found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec -= 86400 * (exists("CLOCK_JUMP_1") + exists("CLOCK_JUMP_2"));
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec precise;
  int result = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec, now->tv_usec = precise.tv_nsec / 1000;
  return result;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
