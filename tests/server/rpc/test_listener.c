/* The unix socket: who gets in, what happens to what already lies at its path, and what survives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/listener.h"

static char folder[64], path[96];
static atomic_int adopted, last_fd;

static void adopt(void *context, int fd)
{
    assert_ptr_equal(context, folder);
    atomic_store(&last_fd, fd);
    atomic_fetch_add(&adopted, 1);
}

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/draftd-listener-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/run/d.sock", folder);
    adopted = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char run[80];
    unlink(path);
    snprintf(run, sizeof run, "%s/run", folder);
    rmdir(run);
    return rmdir(folder);
}

static struct draftd_listener *open_listener(int max)
{
    struct draft_error err = {0};
    struct draftd_listener *listener = draftd_listener_open(path, max, adopt, folder, &err);
    if (listener == NULL)
        print_error("%s\n", err.message);
    assert_non_null(listener);
    return listener;
}

static int connect_once(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

static void eventually(int wanted)
{
    for (int i = 0; i < 3000 && atomic_load(&adopted) < wanted; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&adopted), wanted);
}

/* True when the other side has closed. */
static bool is_closed(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&polled, 1, 3000) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void test_listener__socket_is_private_and_connections_arrive(void **state)
{
    (void)state;
    struct draftd_listener *listener = open_listener(8);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    char run[80];
    snprintf(run, sizeof run, "%s/run", folder);
    assert_int_equal(stat(run, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    int fd = connect_once();
    assert_true(fd >= 0);
    eventually(1);
    close(last_fd);
    close(fd);
    draftd_listener_close(listener);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_listener__stale_socket_is_replaced(void **state)
{
    (void)state;
    draftd_listener_close(open_listener(8));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&address, sizeof address), 0);
    close(dead); /* the file stays, as after kill -9 */
    struct draftd_listener *listener = open_listener(8);
    int fd = connect_once();
    eventually(1);
    close(last_fd);
    close(fd);
    draftd_listener_close(listener);
}

static void test_listener__live_socket_is_left_alone(void **state)
{
    (void)state;
    struct draftd_listener *first = open_listener(8);
    struct draft_error err = {0};
    assert_null(draftd_listener_open(path, 8, adopt, folder, &err));
    assert_int_equal(err.code, DRAFT_ALREADY_EXISTS);
    assert_non_null(strstr(err.message, "another draftd listens"));
    eventually(1); /* the probe; it has hung up */
    close(last_fd);
    int fd = connect_once();
    eventually(2);
    close(last_fd);
    close(fd);
    draftd_listener_close(first);
}

static void test_listener__other_files_are_left_alone(void **state)
{
    (void)state;
    draftd_listener_close(open_listener(8));
    FILE *file = fopen(path, "w");
    fputs("precious", file);
    fclose(file);
    struct draft_error err = {0};
    assert_null(draftd_listener_open(path, 8, adopt, folder, &err));
    assert_non_null(strstr(err.message, "is no socket"));
    assert_int_equal(access(path, F_OK), 0);
}

static void test_listener__folder_that_others_can_write_is_refused(void **state)
{
    (void)state;
    char run[80];
    snprintf(run, sizeof run, "%s/run", folder);
    mkdir(run, 0700);
    chmod(run, 0777);
    struct draft_error err = {0};
    assert_null(draftd_listener_open(path, 8, adopt, folder, &err));
    assert_non_null(strstr(err.message, "can be written by others"));
    chmod(run, 01777); /* as /tmp: nobody can replace what is ours */
    draftd_listener_close(open_listener(8));
}

static void test_listener__path_that_is_too_long_is_refused(void **state)
{
    (void)state;
    char longer[200];
    memset(longer, 'a', sizeof longer - 1);
    longer[0] = '/';
    longer[sizeof longer - 1] = '\0';
    struct draft_error err = {0};
    assert_null(draftd_listener_open(longer, 8, adopt, folder, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "199 bytes long and a unix socket's may have 107"));
}

/* Root is let in with any mode; so only root can play another user. */
static void test_listener__other_users_are_refused(void **state)
{
    (void)state;
    struct draftd_listener *listener = open_listener(8);
    if (geteuid() == 0) {
        char run[80];
        snprintf(run, sizeof run, "%s/run", folder);
        chmod(folder, 0755);
        chmod(run, 0755);
        chmod(path, 0666);
        pid_t child = fork();
        if (child == 0) {
            if (setuid(65534) != 0)
                _exit(3);
            int fd = connect_once();
            _exit(fd < 0 ? 2 : is_closed(fd) ? 0 : 1);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0); /* connected, and closed without a byte */
        assert_int_equal(adopted, 0);
    }
    int fd = connect_once();
    eventually(1);
    close(last_fd);
    close(fd);
    draftd_listener_close(listener);
}

static void test_listener__more_than_allowed_are_closed_until_some_end(void **state)
{
    (void)state;
    struct draftd_listener *listener = open_listener(3);
    int clients[3], ours[3];
    for (int i = 0; i < 3; i++) {
        clients[i] = connect_once();
        eventually(i + 1);
        ours[i] = last_fd;
    }
    int fourth = connect_once();
    assert_true(is_closed(fourth));
    assert_int_equal(adopted, 3);
    close(fourth);
    close(ours[1]); /* as gRPC does when a client has gone */
    close(clients[1]);
    clients[1] = connect_once();
    eventually(4);
    ours[1] = last_fd;
    for (int i = 0; i < 3; i++) {
        close(clients[i]);
        close(ours[i]);
    }
    draftd_listener_close(listener);
}

static void test_listener__running_out_of_descriptors_is_survived(void **state)
{
    (void)state;
    struct draftd_listener *listener = open_listener(64);
    struct rlimit old, low;
    getrlimit(RLIMIT_NOFILE, &old);
    int filler[256], count = 0, client = connect_once();
    eventually(1);
    int first = last_fd;
    low = old;
    low.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &low);
    int waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* needs a descriptor of its own */
    while (count < 256 && (filler[count] = dup(0)) >= 0)
        count++;
    assert_int_equal(errno, EMFILE);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(connect(waiting, (struct sockaddr *)&address, sizeof address), 0); /* into the backlog */
    usleep(100000);
    assert_int_equal(adopted, 1);
    for (int i = 0; i < count; i++)
        close(filler[i]);
    eventually(2);
    setrlimit(RLIMIT_NOFILE, &old);
    close(first);
    close(last_fd);
    close(client);
    close(waiting);
    draftd_listener_close(listener);
}

static void test_listener__close_leaves_a_successors_socket(void **state)
{
    (void)state;
    struct draftd_listener *listener = open_listener(8);
    unlink(path);
    FILE *file = fopen(path, "w"); /* somebody else's by now */
    fclose(file);
    draftd_listener_close(listener);
    assert_int_equal(access(path, F_OK), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_listener__socket_is_private_and_connections_arrive),
        TEST(test_listener__stale_socket_is_replaced),
        TEST(test_listener__live_socket_is_left_alone),
        TEST(test_listener__other_files_are_left_alone),
        TEST(test_listener__folder_that_others_can_write_is_refused),
        TEST(test_listener__path_that_is_too_long_is_refused),
        TEST(test_listener__other_users_are_refused),
        TEST(test_listener__more_than_allowed_are_closed_until_some_end),
        TEST(test_listener__running_out_of_descriptors_is_survived),
        TEST(test_listener__close_leaves_a_successors_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
