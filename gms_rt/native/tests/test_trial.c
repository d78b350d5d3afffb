/* The trial of a graph in a process of its own, against a fake OpenVINO that is told to crash, hang or print there.
 *
 * Usage: test_trial FAKE_OPENVINO FOLDER. The program gmsrt-trial is beside the library. */
#define _GNU_SOURCE /* RTLD_NEXT, syscall */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <stdbool.h>

#include "bytes.h"
#include "gms_rt.h"

static const char *openvino;
static char graph[1024], cache[1024];

/* Functions of the system that the library finds here first. */
#define VISIBLE __attribute__((visibility("default")))
static bool forks, without_handles;
static pid_t forked;
static __thread char tried_with[1100]; /* the OpenVINO that the trial is told to use */

/* As if another thread of the host had forked while the pipes were open. */
VISIBLE int posix_spawn(pid_t *process, const char *path, const posix_spawn_file_actions_t *files,
                        const posix_spawnattr_t *attributes, char *const *arguments, char *const *environment)
{
    int (*real)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const *,
                char *const *);

    *(void **)&real = dlsym(RTLD_NEXT, "posix_spawn");
    for (int i = 0; arguments[i] != NULL; i++)
        if (i == 11) snprintf(tried_with, sizeof tried_with, "%s", arguments[i]);
    if (forks && (forked = fork()) == 0)
        for (;;) pause();
    return real(process, path, files, attributes, arguments, environment);
}

/* A number may be another process's by then. */
VISIBLE int kill(pid_t process, int signal)
{
    CHECK(process == forked, "process %d was sent signal %d by its number", (int)process, signal);
    return (int)syscall(SYS_kill, process, signal);
}

/* The library calls only what handles of processes need by number. */
VISIBLE long syscall(long number, ...)
{
    long (*real)(long, ...);
    long values[4];
    va_list list;

    if (without_handles && number == SYS_pidfd_open) {
        errno = ENOSYS;
        return -1;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    va_start(list, number);
    for (int i = 0; i < 4; i++) values[i] = va_arg(list, long);
    va_end(list);
    return real(number, values[0], values[1], values[2], values[3]);
}

static gmsrt_status try_graph(gmsrt_trial trial, uint32_t seconds)
{
    gmsrt_cpu_options options;

    gmsrt_cpu_options_init(&options, sizeof options);
    options.openvino = openvino;
    options.trial = trial;
    options.trial_seconds = seconds;
    return gmsrt_open_cpu(graph, &options, NULL);
}

static void expect_failure(const char *does, gmsrt_status status, const char *words)
{
    setenv("FAKE_OPENVINO_DOES", does, 1);
    /* Only what hangs needs a limit that is reached. */
    CHECK(try_graph(GMSRT_TRIAL_AUTO, strcmp(does, "hang") == 0 ? 2 : 0) == status, "%s: %s", does, gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), words) != NULL, "'%s' does not say '%s'", gmsrt_last_error(), words);
    unsetenv("FAKE_OPENVINO_DOES");
}

/* Entries of a folder without "." and "..". */
static int entries(const char *folder)
{
    DIR *opened = opendir(folder);
    int count = -2;

    CHECK(opened != NULL, "no folder %s", folder);
    while (readdir(opened) != NULL) count++;
    closedir(opened);
    return count;
}

static int open_files(void)
{
    return entries("/proc/self/fd");
}

static int remembered(void)
{
    char folder[1100];

    snprintf(folder, sizeof folder, "%s/gms-rt/tried", cache);
    return access(folder, F_OK) == 0 ? entries(folder) : 0;
}

static void forget(void)
{
    char command[1200];

    snprintf(command, sizeof command, "rm -rf '%s/gms-rt'", cache);
    CHECK(system(command) == 0, "cannot empty %s", cache);
}

static void test_verdicts(void)
{
    const int files = open_files();

    forget();
    expect_failure("11", GMSRT_BAD_GRAPH,
                   "graph.onnx: OpenVINO fake crashed on this graph (signal 11) when it was tried in a process of its "
                   "own; export it again; it said: last words");
    expect_failure("6", GMSRT_BAD_GRAPH, "(signal 6)");
    expect_failure("8", GMSRT_BAD_GRAPH, "(signal 8)");
    expect_failure("9", GMSRT_OUT_OF_MEMORY, "for lack of memory");
    expect_failure("15", GMSRT_RUNTIME_FAILED, "was ended (signal 15)");
    expect_failure("exit", GMSRT_BAD_GRAPH, "(exit status 7)");
    expect_failure("hang", GMSRT_BAD_GRAPH, "did not finish with this graph within 2 seconds");
    CHECK(remembered() == 0, "a failure was remembered");
    setenv("FAKE_OPENVINO_DOES", "print", 1); /* more than a pipe holds, and something like a verdict */
    CHECK_OK(try_graph(GMSRT_TRIAL_AUTO, 0));
    unsetenv("FAKE_OPENVINO_DOES");
    CHECK(open_files() == files, "%d files are left open", open_files() - files);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1, "a child is left");
}

/* A status of the helper's own is passed on with its words. */
static void test_message(void)
{
    gmsrt_cpu_options options;

    gmsrt_cpu_options_init(&options, sizeof options);
    options.openvino = openvino;
    options.batch = 5; /* the fake's graph has 1 */
    options.trial = GMSRT_TRIAL_ALWAYS;
    CHECK(gmsrt_open_cpu(graph, &options, NULL) == GMSRT_INVALID_ARGUMENT, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "a batch of 5 was asked for") != NULL, "%s", gmsrt_last_error());
}

static void test_memory(void)
{
    char place[1100];

    forget();
    CHECK_OK(try_graph(GMSRT_TRIAL_AUTO, 0));
    CHECK(remembered() == 1, "%d remembered", remembered());
    setenv("FAKE_OPENVINO_DOES", "11", 1);
    CHECK_OK(try_graph(GMSRT_TRIAL_AUTO, 0)); /* not tried again */
    CHECK_OK(try_graph(GMSRT_TRIAL_NEVER, 0));
    CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_BAD_GRAPH, "always is not always");
    unsetenv("FAKE_OPENVINO_DOES");
    /* Folders that are not to be trusted, or not there, are not used. */
    snprintf(place, sizeof place, "%s/gms-rt/tried", cache);
    CHECK(chmod(place, 0777) == 0, "chmod");
    expect_failure("11", GMSRT_BAD_GRAPH, "signal 11");
    forget();
    snprintf(place, sizeof place, "%s/gms-rt", cache);
    CHECK(symlink("/tmp", place) == 0, "symlink");
    CHECK_OK(try_graph(GMSRT_TRIAL_AUTO, 0));
    CHECK(unlink(place) == 0, "the link was replaced");
    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    CHECK_OK(try_graph(GMSRT_TRIAL_AUTO, 0));
    expect_failure("11", GMSRT_BAD_GRAPH, "signal 11");
    setenv("XDG_CACHE_HOME", cache, 1);
    CHECK(remembered() == 0, "remembered in a strange place");
}

/* Whether posix_spawn reports a program that cannot be started. Where vfork is no more than fork, as under QEMU's user
 * emulation, the child ends with 127 instead. */
static bool spawn_reports(const char *program)
{
    char *arguments[] = {(char *)(uintptr_t)program, NULL};
    pid_t process;

    if (posix_spawn(&process, program, NULL, NULL, arguments, arguments + 1) != 0) return true;
    waitpid(process, NULL, 0);
    return false;
}

static void test_program(void)
{
    char other[1100];

    setenv("GMS_RT_TRIAL", "/nowhere/gmsrt-trial", 1);
    CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_NO_RUNTIME, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "/nowhere/gmsrt-trial is missing; copy it next to libgms_rt.so") != NULL &&
              strstr(gmsrt_last_error(), "GMSRT_TRIAL_NEVER") != NULL,
          "%s", gmsrt_last_error());
    CHECK_OK(try_graph(GMSRT_TRIAL_NEVER, 0));
    snprintf(other, sizeof other, "%s/no-program", cache);
    write_bytes(other, "\177nonsense", 9);
    CHECK(chmod(other, 0700) == 0, "chmod");
    setenv("GMS_RT_TRIAL", other, 1);
    if (spawn_reports(other)) {
        CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_NO_RUNTIME, "%s", gmsrt_last_error());
        CHECK(strstr(gmsrt_last_error(), "cannot be started") != NULL, "%s", gmsrt_last_error());
    } else {
        CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_BAD_GRAPH, "%s", gmsrt_last_error());
    }
    setenv("GMS_RT_TRIAL", "/bin/true", 1); /* ends well and says nothing */
    CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_BAD_GRAPH, "%s", gmsrt_last_error());
    setenv("GMS_RT_TRIAL", "bin/true", 1);
    CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_NO_RUNTIME, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "bin/true is not an absolute path") != NULL, "%s", gmsrt_last_error());
    unsetenv("GMS_RT_TRIAL");
    unlink(other);
}

/* Hosts that ignore their children, or have closed their standard streams. */
static void test_hosts(void)
{
    int status = 0;
    pid_t host;

    forget();
    host = fork();
    CHECK(host >= 0, "no child");
    if (host == 0) {
        signal(SIGCHLD, SIG_IGN);
        expect_failure("hang", GMSRT_BAD_GRAPH, "did not finish");
        CHECK_OK(try_graph(GMSRT_TRIAL_ALWAYS, 0));
        setenv("FAKE_OPENVINO_DOES", "11", 1);
        CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_BAD_GRAPH, "%s", gmsrt_last_error());
        unsetenv("FAKE_OPENVINO_DOES");
        CHECK(strstr(gmsrt_last_error(), "crashed on this graph when") != NULL, "%s", gmsrt_last_error());
        close(0);
        close(1);
        close(2);
        _exit(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_OK ? 0 : 9);
    }
    CHECK(waitpid(host, &status, 0) == host && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

/* A fork of the host has the pipes too, so they do not end with the child. */
static void test_fork(void)
{
    static const struct {
        const char *does;
        gmsrt_status status;
    } cases[] = {{"print", GMSRT_OK}, {"11", GMSRT_BAD_GRAPH}, {"exit", GMSRT_BAD_GRAPH}};

    for (int i = 0; i < 6; i++) {
        without_handles = i >= 3;
        forks = true;
        setenv("FAKE_OPENVINO_DOES", cases[i % 3].does, 1);
        CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 60) == cases[i % 3].status, "%s", gmsrt_last_error());
        if (cases[i % 3].status != GMSRT_OK)
            CHECK(strstr(gmsrt_last_error(), "crashed on this graph (") != NULL, "%s", gmsrt_last_error());
        unsetenv("FAKE_OPENVINO_DOES");
        forks = false;
        CHECK(forked > 0 && kill(forked, SIGKILL) == 0 && waitpid(forked, NULL, 0) == forked, "no fork was made");
    }
    forget();
    without_handles = true;
    expect_failure("hang", GMSRT_BAD_GRAPH, "did not finish with this graph within 2 seconds"); /* it ends itself */
    without_handles = false;
    CHECK(waitpid(-1, NULL, WNOHANG) == -1, "a child is left");
}

static void test_limits(void)
{
    CHECK(dup2(2, 60) == 60 && dup2(2, 900) == 900, "no files");
    setenv("FAKE_OPENVINO_DOES", "look", 1);
    CHECK_OK(try_graph(GMSRT_TRIAL_ALWAYS, 0));
    unsetenv("FAKE_OPENVINO_DOES");
    close(60);
    close(900);
}

/* What was tried is what is opened. */
static void test_replaced(void)
{
    const bytes whole = sound_model();
    gmsrt_cpu_options options;
    gmsrt_runner *runner = NULL;
    char other[1100];

    forget();
    setenv("FAKE_OPENVINO_DOES", "replace", 1);
    snprintf(other, sizeof other, "%s.other", graph);
    write_bytes(other, whole.data, whole.size);
    CHECK(try_graph(GMSRT_TRIAL_AUTO, 0) == GMSRT_BAD_GRAPH, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "graph.onnx was changed while it was being opened") != NULL, "%s",
          gmsrt_last_error());
    CHECK(remembered() == 0, "another file was remembered");
    CHECK(access(other, F_OK) != 0, "nothing was replaced");
    /* Between the trial, or the hash where there is none, and OpenVINO in this process. */
    gmsrt_cpu_options_init(&options, sizeof options);
    options.openvino = openvino;
    options.trial = GMSRT_TRIAL_NEVER;
    write_bytes(other, whole.data, whole.size);
    CHECK(gmsrt_open_cpu(graph, &options, &runner) == GMSRT_BAD_GRAPH && runner == NULL, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "was changed while it was being opened") != NULL, "%s", gmsrt_last_error());
    unsetenv("FAKE_OPENVINO_DOES");
    CHECK_OK(gmsrt_open_cpu(graph, &options, &runner));
    gmsrt_close(runner);
}

/* The trial gets the file of the OpenVINO that is loaded here, whatever it is called and wherever the host is. */
static void test_same_openvino(void)
{
    const char *chosen = openvino;
    char here[1024], folder[1024], name[1100];
    const char *slash = strrchr(openvino, '/');

    CHECK(getcwd(here, sizeof here) != NULL && slash != NULL, "%s", openvino);
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - openvino), openvino);
    CHECK(chdir(folder) == 0, "no folder %s", folder);
    snprintf(name, sizeof name, ".%s", slash);
    openvino = name;
    CHECK_OK(try_graph(GMSRT_TRIAL_ALWAYS, 0));
    CHECK(tried_with[0] == '/' && strstr(tried_with, slash) != NULL, "tried with %s", tried_with);
    openvino = NULL;
    setenv("GMS_RT_OPENVINO", name, 1);
    CHECK(try_graph(GMSRT_TRIAL_ALWAYS, 0) == GMSRT_INVALID_ARGUMENT, "%s", gmsrt_last_error());
    CHECK(strstr(gmsrt_last_error(), "give an absolute path") != NULL, "%s", gmsrt_last_error());
    unsetenv("GMS_RT_OPENVINO");
    openvino = chosen;
    CHECK(chdir(here) == 0, "no folder %s", here);
}

static void *try_some(void *data)
{
    (void)data;
    for (int i = 0; i < 5; i++) CHECK_OK(try_graph(i % 2 ? GMSRT_TRIAL_ALWAYS : GMSRT_TRIAL_AUTO, 0));
    return NULL;
}

static void test_threads(void)
{
    const int files = open_files();
    pthread_t threads[4];

    forget();
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, try_some, NULL) == 0, "no thread");
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK(open_files() == files && remembered() == 1, "%d remembered", remembered());
}

int main(int argc, char **argv)
{
    const bytes whole = sound_model();
    char real[4096];

    CHECK(argc == 3, "usage: test_trial FAKE_OPENVINO FOLDER");
    openvino = argv[1];
    CHECK(realpath(argv[2], real) != NULL && strlen(real) < 1000, "no folder %s", argv[2]); /* a test changes it */
    snprintf(graph, sizeof graph, "%.1000s/graph.onnx", real);
    snprintf(cache, sizeof cache, "%s/cache", argv[2]);
    if (cache[0] != '/') CHECK(getcwd(cache, 900) != NULL && strcat(strcat(cache, "/"), "trial-cache") != NULL, "cwd");
    mkdir(cache, 0700);
    setenv("XDG_CACHE_HOME", cache, 1);
    unsetenv("GMS_RT_TRIAL");
    write_bytes(graph, whole.data, whole.size);
    test_verdicts();
    test_message();
    test_memory();
    test_program();
    test_hosts();
    test_fork();
    test_limits();
    test_replaced();
    test_same_openvino();
    test_threads();
    forget();
    rmdir(cache);
    return checks_passed("test_trial (fake OpenVINO)");
}
