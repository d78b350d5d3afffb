/* The trial: a graph is opened and run once by a small program of its own before the host opens it.
 *
 * A crash or a loop without end, which a malformed graph can cause in OpenVINO, happens there. The program is next to
 * this library and is started with posix_spawn, which is safe in a host with many threads. It writes its verdict to a
 * pipe, so that a host that ignores SIGCHLD, or collects every child itself, gets it too.
 *
 * The verdict, or the end of the child, ends the wait; the end of the pipe does not, because another process of the host
 * may have inherited it. A child is only killed through a handle of its own (pidfd): its number may belong to another
 * process by then. Where there is no handle, the child's own alarm ends it. */
#if defined(__linux__)
#define _GNU_SOURCE /* pipe2, dladdr, syscall: also no other program that the host starts may inherit the pipes */
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"

#define PROGRAM "gmsrt-trial"
#define DEFAULT_SECONDS 600u
#define MAX_VERDICT 1200u
#define MAX_NOISE 300u
#define GRACE 2000.0 /* milliseconds in which a child that has said its verdict, or was killed, is gone */

extern char **environ;

typedef struct stream {
    int file; /* -1: ended */
    size_t limit, used;
    char text[MAX_VERDICT + 1];
} stream;

typedef struct child {
    pid_t process;
    int handle;            /* its pidfd; -1: none */
    stream verdict, noise; /* its standard output and error */
    bool timed_out, given_up;
    bool ended;
    int signal, code; /* that ended it, 0: none; its exit status, -1: somebody else has collected it */
} child;

/* Where an installation has the program, as seen from the folder of the library: known where CMake has built it. */
#ifdef GMSRT_TRIAL_FOLDER
static const char *const places[] = {"", "/" GMSRT_TRIAL_FOLDER};
#else
static const char *const places[] = {""};
#endif

static char folders[2][4096]; /* where this library is: the folder of the file, and of the name that led to it */

/* The file that holds this code. A program that is linked with the static library is named by the system: what its
 * caller has said (argv[0]) may be another file, or none. */
static bool name_of_self(char *name, size_t size)
{
    Dl_info self;

    if (dladdr(folders, &self) == 0 || self.dli_fname == NULL) return false;
#if defined(__linux__)
    Dl_info program;

    if (dladdr((const void *)(uintptr_t)getauxval(AT_PHDR), &program) != 0 && program.dli_fbase == self.dli_fbase) {
        const ssize_t length = readlink("/proc/self/exe", name, size - 1);

        if (length <= 0 || (size_t)length >= size - 1) return false;
        name[length] = '\0';
        return true;
    }
#endif
    return snprintf(name, size, "%s", self.dli_fname) < (int)size;
}

/* At load, when a relative name still means the file that was loaded. */
__attribute__((constructor)) static void find_folders(void)
{
    char called[4096], name[4096];

    if (!name_of_self(called, sizeof called)) return;
    for (int i = 0; i < 2; i++) {
        const char *slash;

        if (i == 0 && realpath(called, name) == NULL) continue;
        if (i == 1) memcpy(name, called, sizeof name);
        slash = strrchr(name, '/');
        if (slash == NULL) continue;
        name[slash == name ? 1 : slash - name] = '\0';
        if (realpath(name, folders[i]) == NULL) folders[i][0] = '\0';
    }
}

/* $GMS_RT_TRIAL, else next to this library or where the installation has it, else so for the link that led to it:
 * always an absolute path. */
static bool find_program(char *path, size_t size)
{
    const char *chosen = gmsrt_environment("GMS_RT_TRIAL");

    if (chosen != NULL)
        return snprintf(path, size, "%s", chosen) < (int)size && path[0] == '/' && access(path, X_OK) == 0;
    for (size_t i = 0; i < 2 * sizeof places / sizeof *places; i++) {
        const char *folder = folders[i % 2], *place = places[i / 2];

        if (folder[0] != '\0' && snprintf(path, size, "%s%s/%s", folder, place, PROGRAM) < (int)size &&
            access(path, X_OK) == 0)
            return true;
    }
    if (folders[0][0] == '\0' || snprintf(path, size, "%s/%s", folders[0], PROGRAM) >= (int)size)
        snprintf(path, size, "%s", PROGRAM);
    return false;
}

/* A pipe that no other program inherits, away from the standard streams, which a host may have closed. */
static bool open_pipe(int ends[2])
{
    int raw[2];

#if defined(__linux__)
    if (pipe2(raw, O_CLOEXEC) != 0) return false;
#else
    if (pipe(raw) != 0) return false;
#endif
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(raw[i], F_DUPFD_CLOEXEC, 3);
        close(raw[i]);
    }
    if (ends[0] >= 0 && ends[1] >= 0) return true;
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0) close(ends[i]);
    return false;
}

/* posix_spawn with the two pipes as output and error, a graph in memory as file 3 (-1: there is none), no signal blocked
 * and none ignored; 0 or an errno. */
static int spawn(const char *program, char *const *arguments, int verdict, int noise, int graph, pid_t *process)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    int code = posix_spawn_file_actions_init(&files);

    if (code != 0) return code;
    if ((code = posix_spawnattr_init(&attributes)) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return code;
    }
    sigemptyset(&none);
    sigfillset(&usual);
    sigdelset(&usual, SIGKILL);
    sigdelset(&usual, SIGSTOP);
    code = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (code == 0) code = posix_spawn_file_actions_adddup2(&files, verdict, 1);
    if (code == 0) code = posix_spawn_file_actions_adddup2(&files, noise, 2);
    if (code == 0 && graph >= 0) code = posix_spawn_file_actions_adddup2(&files, graph, 3);
    if (code == 0) code = posix_spawnattr_setsigmask(&attributes, &none);
    if (code == 0) code = posix_spawnattr_setsigdefault(&attributes, &usual);
    if (code == 0) code = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (code == 0) code = posix_spawn(process, program, &files, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return code;
}

/* Read what is there; of more than `limit` bytes the last are kept. */
static void drain(stream *from)
{
    char piece[512];
    const ssize_t got = read(from->file, piece, sizeof piece);
    size_t count, kept;

    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got <= 0) {
        close(from->file);
        from->file = -1;
        return;
    }
    count = (size_t)got < from->limit ? (size_t)got : from->limit;
    kept = from->used + count > from->limit ? from->limit - count : from->used;
    memmove(from->text, from->text + from->used - kept, kept);
    memcpy(from->text + kept, piece + got - count, count);
    from->used = kept + count;
    from->text[from->used] = '\0';
}

static int open_handle(pid_t process)
{
#if defined(SYS_pidfd_open) && defined(SYS_pidfd_send_signal)
    return (int)syscall(SYS_pidfd_open, process, 0u); /* closed by exec, as every pidfd */
#else
    (void)process;
    return -1;
#endif
}

/* Whether the child has ended; it is collected then, if nobody else has done that. */
static bool has_ended(child *c)
{
    const int by_handle = 3; /* P_PIDFD, which older headers lack */
    siginfo_t how;
    int code;

    if (c->ended) return true;
    memset(&how, 0, sizeof how);
    code = waitid(c->handle >= 0 ? (idtype_t)by_handle : P_PID, (id_t)(c->handle >= 0 ? c->handle : c->process), &how,
                  WEXITED | WNOHANG);
    if (code != 0 && errno == EINTR) return false;
    if (code != 0 && errno == EINVAL && c->handle >= 0) { /* Linux 5.3 has handles, but does not wait for them */
        close(c->handle);
        c->handle = -1;
        return false;
    }
    if (code == 0 && how.si_pid == 0) return false;
    c->ended = true;
    if (code != 0)
        c->code = -1;
    else if (how.si_code == CLD_EXITED)
        c->code = how.si_status;
    else
        c->signal = how.si_status;
    return true;
}

static void stop(const child *c)
{
#if defined(SYS_pidfd_open) && defined(SYS_pidfd_send_signal)
    if (c->handle >= 0) syscall(SYS_pidfd_send_signal, c->handle, SIGKILL, NULL, 0u);
#else
    (void)c;
#endif
}

static bool has_spoken(const child *c)
{
    return c->verdict.used > 0 && c->verdict.text[c->verdict.used - 1] == '\n';
}

/* Listen until the child has said its verdict or has ended, at most so long. */
static void listen_to(child *c, uint32_t seconds)
{
    const double end = gmsrt_now() + 1e3 * seconds;

    while (!has_spoken(c)) {
        const bool ended = has_ended(c); /* asked first: what it has said before its end can be read then */
        struct pollfd waiting[3] = {
            {c->verdict.file, POLLIN, 0}, {c->noise.file, POLLIN, 0}, {ended ? -1 : c->handle, POLLIN, 0}};
        const double left = end - gmsrt_now(), step = c->handle >= 0 && !gmsrt_may_stop() ? 1000 : 20;

        if (gmsrt_is_stopped()) {
            c->given_up = true;
            break;
        }
        if (left <= 0) {
            c->timed_out = true;
            break;
        }
        if (poll(waiting, 3, ended ? 0 : (int)(left < step ? left + 1 : step)) > 0) {
            if (waiting[0].revents != 0) drain(&c->verdict);
            if (waiting[1].revents != 0) drain(&c->noise);
        } else if (ended) {
            break;
        }
    }
}

/* Wait until the child is gone; one that does not go is killed. */
static void collect(child *c)
{
    const double begin = gmsrt_now();
    bool stopped = false;

    while (!has_ended(c)) {
        struct pollfd waiting = {c->handle, POLLIN, 0};
        const double passed = gmsrt_now() - begin;

        if (!stopped && (c->timed_out || c->given_up || passed > GRACE)) {
            stop(c);
            stopped = true;
        }
        if (passed > 2 * GRACE) break; /* it ends itself */
        poll(&waiting, 1, c->handle >= 0 ? 100 : 5);
    }
    if (c->verdict.file >= 0) close(c->verdict.file);
    if (c->noise.file >= 0) close(c->noise.file);
    if (c->handle >= 0) close(c->handle);
}

/* What the trial has shown, as a status. */
static gmsrt_status judge(const child *c, const char *path, const char *runtime, uint32_t seconds)
{
    const int version = (int)strcspn(runtime, "-"); /* "OpenVINO 2026.4.0" without the build */
    const char *said = c->noise.used > 0 ? "; it said: " : "";
    char how[40] = "";
    char *words;
    long status;

    if (c->given_up) return gmsrt_fail(GMSRT_CANCELLED, "%s: opening it was given up", path);
    if (c->timed_out || c->signal == SIGALRM || c->signal == SIGXCPU)
        return gmsrt_fail(GMSRT_BAD_GRAPH,
                          "%s: %.*s did not finish with this graph within %u seconds when it was tried in a process of "
                          "its own; export it again, or raise trial_seconds",
                          path, version, runtime, seconds);
    status = strtol(c->verdict.text, &words, 10);
    if (words != c->verdict.text && *words == ' ' && has_spoken(c))
        return status == GMSRT_OK ? GMSRT_OK : gmsrt_fail((gmsrt_status)status, "%s", words + 1);
    if (c->signal != 0) {
        const int signal = c->signal;

        if (signal == SIGKILL)
            return gmsrt_fail(GMSRT_OUT_OF_MEMORY,
                              "%s: the process that tried this graph was killed, most likely for lack of memory", path);
        if (signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT)
            return gmsrt_fail(GMSRT_RUNTIME_FAILED,
                              "%s: the process that tried this graph was ended (signal %d); open "
                              "it again",
                              path, signal);
        snprintf(how, sizeof how, " (signal %d)", signal);
    } else if (c->code != -1) {
        snprintf(how, sizeof how, " (exit status %d)", c->code);
    }
    return gmsrt_fail(GMSRT_BAD_GRAPH,
                      "%s: %.*s crashed on this graph%s when it was tried in a process of its own; export it again%s%s",
                      path, version, runtime, how, said, c->noise.text);
}

static uint32_t megabytes(const gmsrt_files *files)
{
    uint64_t size = 0;

    for (size_t i = 0; i < files->count; i++) size += files->items[i].size;
    return (uint32_t)(size >> 20) + 1;
}

/* A file without a name that holds a graph in memory; -1 with errno. It is never 3, which it is to become. */
static int file_of(const gmsrt_files *files)
{
#if defined(__linux__) && defined(SYS_memfd_create)
    int file = (int)syscall(SYS_memfd_create, "gms-rt graph", 1u /* MFD_CLOEXEC */);
#else
    char name[] = "/tmp/gms-rt-graph-XXXXXX";
    int file = mkstemp(name);

    if (file >= 0) unlink(name);
#endif
    const int moved = file >= 0 ? fcntl(file, F_DUPFD_CLOEXEC, 4) : -1;

    if (file >= 0) close(file);
    for (size_t done = 0; moved >= 0 && done < files->size;) {
        const ssize_t wrote = write(moved, files->bytes + done, files->size - done);

        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) {
            close(moved);
            return -1;
        }
        done += (size_t)wrote;
    }
    return moved;
}

static gmsrt_status run_program(const char *program, const char *path, const gmsrt_files *files,
                                const gmsrt_cpu_options *options, const char *openvino, const char *runtime)
{
    const uint32_t seconds = options->trial_seconds > 0 ? options->trial_seconds : DEFAULT_SECONDS;
    const uint32_t numbers[] = {GMSRT_ABI_VERSION,       seconds,          (uint32_t)options->precision,
                                (uint32_t)options->mode, options->threads, options->lanes,
                                options->batch,          megabytes(files), (uint32_t)getpid()};
    char text[9][12];
    char *arguments[15] = {(char *)(uintptr_t)program};
    int verdict[2], noise[2], memory = -1, code;
    child *c;
    gmsrt_status status;

    for (int i = 0; i < 9; i++) {
        snprintf(text[i], sizeof text[i], "%u", numbers[i]);
        arguments[i + 1] = text[i];
    }
    arguments[10] = (char *)(uintptr_t)path; /* posix_spawn does not change them */
    arguments[11] = (char *)(uintptr_t)openvino;
    arguments[12] = (char *)(uintptr_t)(options->cache != NULL ? options->cache : "");
    arguments[13] = (char *)(uintptr_t)(files->bytes != NULL ? "3" : "");
    c = calloc(1, sizeof *c);
    if (c == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to try %s", path);
    if (!open_pipe(verdict)) {
        free(c);
        return gmsrt_fail(GMSRT_RUNTIME_FAILED, "no pipe to try %s: %s", path, strerror(errno));
    }
    if (!open_pipe(noise)) {
        status = gmsrt_fail(GMSRT_RUNTIME_FAILED, "no pipe to try %s: %s", path, strerror(errno));
        close(verdict[0]);
        close(verdict[1]);
        free(c);
        return status;
    }
    if (files->bytes != NULL && (memory = file_of(files)) < 0)
        code = errno;
    else
        code = spawn(program, arguments, verdict[1], noise[1], memory, &c->process);
    if (memory >= 0) close(memory);
    close(verdict[1]);
    close(noise[1]);
    c->verdict.file = verdict[0];
    c->verdict.limit = MAX_VERDICT;
    c->noise.file = noise[0];
    c->noise.limit = MAX_NOISE;
    if (code == 0) {
        c->handle = open_handle(c->process);
        listen_to(c, seconds);
        collect(c);
        status = judge(c, path, runtime, seconds);
    } else {
        close(verdict[0]);
        close(noise[0]);
        status = gmsrt_fail(GMSRT_NO_RUNTIME,
                            "%s cannot be started: %s; copy it again, or open a graph that you trust "
                            "with GMSRT_TRIAL_NEVER",
                            program, strerror(code));
    }
    free(c);
    return status;
}

/* Everything that the outcome depends on, in one hash. */
static void make_key(const gmsrt_files *files, const gmsrt_cpu_options *options, const char *runtime,
                     const char *device, char key[65])
{
    gmsrt_sha256_state sum;
    char text[400];

    snprintf(text, sizeof text, "gms-rt tried\n%u\n%s\n%s\n%d %u\n", GMSRT_ABI_VERSION, runtime, device,
             (int)options->precision, options->batch);
    gmsrt_sha256_start(&sum);
    gmsrt_sha256_add(&sum, text, strlen(text));
    for (size_t i = 0; i < files->count; i++) gmsrt_sha256_add(&sum, files->items[i].hex, 64);
    gmsrt_sha256_end(&sum, key);
}

gmsrt_status gmsrt_try_graph(const char *path, gmsrt_files *files, const gmsrt_cpu_options *options,
                             const char *openvino, const char *runtime, const char *device)
{
    char program[4096], key[65];
    gmsrt_status status;
    double began;

    if (options->trial == GMSRT_TRIAL_NEVER) return GMSRT_OK;
    if ((status = gmsrt_files_hash(files, path)) != GMSRT_OK) return status;
    make_key(files, options, runtime, device, key);
    if (options->trial == GMSRT_TRIAL_AUTO && gmsrt_was_tried(key)) return GMSRT_OK;
    began = gmsrt_now();
    if (!find_program(program, sizeof program))
        return gmsrt_fail(GMSRT_NO_RUNTIME,
                          "%s %s; copy it next to libgms_rt.so or name it in GMS_RT_TRIAL, or open a graph that "
                          "you trust with GMSRT_TRIAL_NEVER",
                          program, program[0] == '/' ? "is missing" : "is not an absolute path");
    if (openvino == NULL || openvino[0] != '/')
        return gmsrt_fail(GMSRT_NO_RUNTIME,
                          "OpenVINO was loaded by a relative path (%s), so a graph cannot be tried with the same one; "
                          "load it by its absolute path",
                          openvino != NULL ? openvino : "unknown");
    status = run_program(program, path, files, options, openvino, runtime);
    if (status == GMSRT_OK) status = gmsrt_files_same(files, path);
    if (status != GMSRT_OK) return status;
    gmsrt_log(GMSRT_LOG_INFO, "%s was opened and run in a process of its own, %.0f ms", path, gmsrt_now() - began);
    if (!gmsrt_remember_tried(key))
        gmsrt_log(GMSRT_LOG_WARNING,
                  "that %s passed its trial cannot be remembered: there is no cache folder that only you can write",
                  path);
    return GMSRT_OK;
}
