/* RPC by hand on librabbitmq: what the broker and the machine allow.
 *
 * Blocking, one thread. Direct reply-to, auto-ack, transient queues, the default exchange, no deadlines; bodies are one
 * letter (e: echo, n: note) and the payload, not decoded at all. Usage:
 *
 *     librabbitmq ROLE HOST PORT USER PASSWORD RUN TALLY SERVERS INDEX TOPICS
 *
 * It obeys the same commands as benchmarks/child.py and answers in the same JSON.
 */
#define _GNU_SOURCE
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 64, FRAME_MAX = 131072, NAME = 128, POLL_US = 1000 };
static const double EXECUTED_WITHIN = 20;

static const char *run;
static int servers, own_index, topics;
static volatile uint64_t *tally;
static amqp_connection_state_t connection;
static char (*names)[NAME];
static char fanout_exchange[NAME];
static char *body;
static size_t body_length;
static unsigned next_topic;

static void fail(const char *what) {
    fprintf(stderr, "librabbitmq: %s\n", what);
    printf("{\"error\": \"%s\"}\n", what);
    fflush(stdout);
    exit(1);
}

static void check(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static long resident(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1) fail("no /proc/self/statm");
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static amqp_connection_state_t connect_to(const char *host, int port, const char *user, const char *password) {
    amqp_connection_state_t made = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(made);
    if (socket == NULL || amqp_socket_open(socket, host, port)) fail("no connection");
    check(amqp_login(made, "/", 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN, user, password), "no login");
    amqp_channel_open(made, 1);
    check(amqp_get_rpc_reply(made), "no channel");
    return made;
}

static void publish(const char *exchange, amqp_bytes_t key, amqp_basic_properties_t *properties, amqp_bytes_t bytes) {
    if (amqp_basic_publish(connection, 1, amqp_cstring_bytes(exchange), key, 0, 0, properties, bytes))
        fail("publish failed");
}

static void consume(amqp_bytes_t queue) {
    amqp_basic_consume(connection, 1, queue, amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "no consumer");
}

static void receive(amqp_envelope_t *envelope) {
    amqp_maybe_release_buffers(connection);
    check(amqp_consume_message(connection, envelope, NULL, 0), "connection lost");
}

static void *end_with_parent(void *unused) {
    char byte;
    while (read(0, &byte, 1) > 0) continue;
    (void)unused;
    _exit(0);
}

static void serve(void) {
    char own[NAME + 12];
    pthread_t watcher;
    if (pthread_create(&watcher, NULL, end_with_parent, NULL)) fail("no thread");
    for (int i = 0; i < topics; i++) {
        amqp_queue_declare(connection, 1, amqp_cstring_bytes(names[i]), 0, 0, 0, 0, amqp_empty_table);
        check(amqp_get_rpc_reply(connection), "no queue");
        consume(amqp_cstring_bytes(names[i]));
    }
    snprintf(own, sizeof own, "%s.%d", fanout_exchange, own_index);
    amqp_exchange_declare(connection, 1, amqp_cstring_bytes(fanout_exchange), amqp_cstring_bytes("fanout"), 0, 0, 0, 0,
                          amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "no exchange");
    amqp_queue_declare(connection, 1, amqp_cstring_bytes(own), 0, 0, 1, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "no queue");
    amqp_queue_bind(connection, 1, amqp_cstring_bytes(own), amqp_cstring_bytes(fanout_exchange), amqp_empty_bytes,
                    amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "not bound");
    consume(amqp_cstring_bytes(own));
    printf("{\"ready\": true}\n");
    fflush(stdout);
    for (;;) {
        amqp_envelope_t envelope;
        receive(&envelope);
        amqp_message_t *message = &envelope.message;
        if (((char *)message->body.bytes)[0] == 'e') {
            amqp_basic_properties_t answer = {
                ._flags = AMQP_BASIC_CORRELATION_ID_FLAG, .correlation_id = message->properties.correlation_id};
            publish("", message->properties.reply_to, &answer, message->body);
        } else {
            tally[own_index]++;
        }
        amqp_destroy_envelope(&envelope);
    }
}

static void fill(char letter, size_t payload) {
    body_length = payload + 1;
    body = realloc(body, body_length);
    memset(body, 'x', body_length);
    body[0] = letter;
}

static amqp_bytes_t bytes_of_body(void) {
    amqp_bytes_t bytes = {.len = body_length, .bytes = body};
    return bytes;
}

static amqp_bytes_t topic(void) { return amqp_cstring_bytes(names[next_topic++ % topics]); }

static void request(long number) {
    char text[24];
    snprintf(text, sizeof text, "%ld", number);
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG,
                                          .reply_to = amqp_cstring_bytes("amq.rabbitmq.reply-to"),
                                          .correlation_id = amqp_cstring_bytes(text)};
    publish("", topic(), &properties, bytes_of_body());
}

static void call(long n, long in_flight) {
    long sent = 0;
    while (sent < n && sent < in_flight) request(sent++);
    for (long answered = 0; answered < n; answered++) {
        amqp_envelope_t envelope;
        receive(&envelope);
        if (envelope.message.body.len != body_length || memcmp(envelope.message.body.bytes, body, body_length))
            fail("wrong answer");
        amqp_destroy_envelope(&envelope);
        if (sent < n) request(sent++);
    }
}

static uint64_t executed(void) {
    uint64_t sum = 0;
    for (int i = 0; i < SLOTS; i++) sum += tally[i];
    return sum;
}

static void await_executed(uint64_t target) {
    double end = now(CLOCK_MONOTONIC) + EXECUTED_WITHIN;
    while (executed() < target) {
        if (now(CLOCK_MONOTONIC) > end) fail("not all casts were executed");
        usleep(POLL_US);
    }
}

static void obey(void) {
    char line[200], command[20];
    consume(amqp_cstring_bytes("amq.rabbitmq.reply-to"));
    printf("{\"ready\": true, \"memory\": {\"imported\": 0, \"opened\": %ld}, \"versions\": {\"librabbitmq\": \"%s\"}}\n",
           resident(), amqp_version());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        long n = 0, second = 0, third = 0;
        int words = sscanf(line, "%19s %ld %ld %ld", command, &n, &second, &third);
        double *times = NULL;
        fill(strcmp(command, "cast") && strcmp(command, "fanout") ? 'e' : 'n', words == 4 ? third : second);
        uint64_t before = executed();
        double cpu = now(CLOCK_PROCESS_CPUTIME_ID), began = now(CLOCK_MONOTONIC);
        if (!strcmp(command, "call")) {
            call(n, second);
        } else if (!strcmp(command, "latency")) {
            times = calloc(n, sizeof *times);
            for (long i = 0; i < n; i++) {
                double start = now(CLOCK_MONOTONIC);
                call(1, 1);
                times[i] = now(CLOCK_MONOTONIC) - start;
            }
        } else if (!strcmp(command, "cast")) {
            for (long i = 0; i < n; i++) publish("", topic(), NULL, bytes_of_body());
            await_executed(before + n);
        } else if (!strcmp(command, "fanout")) {
            for (long i = 0; i < n; i++) publish(fanout_exchange, amqp_empty_bytes, NULL, bytes_of_body());
            await_executed(before + (uint64_t)n * servers);
        }
        double seconds = now(CLOCK_MONOTONIC) - began;
        printf("{\"seconds\": %.9f, \"cpu\": %.9f, \"latencies\": [", seconds, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        for (long i = 0; times != NULL && i < n; i++) printf("%s%.1f", i ? ", " : "", times[i] * 1e6);
        printf("]}\n");
        fflush(stdout);
        free(times);
    }
}

int main(int count, char **words) {
    if (count != 11) fail("usage: ROLE HOST PORT USER PASSWORD RUN TALLY SERVERS INDEX TOPICS");
    run = words[6];
    servers = atoi(words[8]), own_index = atoi(words[9]), topics = atoi(words[10]);
    int file = open(words[7], O_RDWR);
    tally = mmap(NULL, SLOTS * sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || tally == MAP_FAILED) fail("no tally");
    names = calloc(topics, NAME);
    for (int i = 0; i < topics; i++) snprintf(names[i], NAME, "%s-%d", run, i);
    snprintf(fanout_exchange, NAME, "%s.fanout", run);
    connection = connect_to(words[2], atoi(words[3]), words[4], words[5]);
    if (!strcmp(words[1], "server")) serve();
    obey();
    return 0;
}
