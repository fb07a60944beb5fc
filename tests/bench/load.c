/*
 * Load for a milter, spoken as Postfix 3.7's smtpd and cleanup speak it, with every edit checked.
 *
 *     cc -O2 -o load load.c
 *     load [options] SOCKET           SOCKET: unix:PATH or inet:PORT@HOST (a numeric IPv4 address)
 *       -c N    connections at the same time (10)
 *       -m N    messages a connection, then QUIT and a new one (10)
 *       -n N    messages in all (10000)
 *       -p N    percentage of messages with a matching recipient (100)
 *       -r N    rules: matching recipients are help0000 to help<N-1>@solarmora.com (1000)
 *       -H N    header fields (12); 0 is a message that starts with the empty line
 *       -b N    body size in bytes (4096)
 *       -i N    open N further connections that stay idle after one message each (0)
 *       -s      play the milter instead: answer on SOCKET as fast as can be, until SIGTERM. What load reaches against it is
 *               what load itself can do
 * One JSON object on stdout; exit 1 if any reply or edit was wrong, 2 if the arguments were.
 *
 * The wire, from milter8.c, smtpd.c and cleanup_milter.c of Postfix 3.7.11:
 * - the macros of an event go out even when the event itself was declined (NOHELO and so on), and those of the end of
 *   header go before every header field;
 * - an event without a reply (NR_*) stays in the output buffer, which is written when a reply is waited for, every 4096 bytes
 *   on a Unix socket, and when smtpd hands the connection to cleanup;
 * - macro i is not known before the first recipient was accepted;
 * - ABORT follows every message, also a completed one, and is written together with what comes next.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Actions and steps that Postfix 3.7 offers with milter_protocol = 6. */
#define ALL_ACTIONS 0x1ffu
#define ALL_STEPS 0x1fffffu

enum { NOCONNECT = 1 << 0, NOHELO = 1 << 1, NOMAIL = 1 << 2, NORCPT = 1 << 3, NOBODY = 1 << 4, NOHDRS = 1 << 5, NOEOH = 1 << 6,
       NR_HDR = 1 << 7, NODATA = 1 << 9, NR_CONN = 1 << 12, NR_HELO = 1 << 13, NR_MAIL = 1 << 14, NR_RCPT = 1 << 15,
       NR_DATA = 1 << 16, NR_EOH = 1 << 18, NR_BODY = 1 << 19, HDR_LEADSPC = 1 << 20 };

enum { M_CONNECT, M_HELO, M_MAIL, M_RCPT, M_DATA, M_EOM, M_EOH, MACRO_LISTS };

static const char *const default_macros[MACRO_LISTS] = {
    [M_CONNECT] = "j {daemon_name} {daemon_addr} v _",
    [M_HELO] = "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
    [M_MAIL] = "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
    [M_RCPT] = "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
    [M_DATA] = "i",
    [M_EOM] = "i",
    [M_EOH] = "i",
};

enum { V_I, V_MAIL_ADDR, V_RCPT_ADDR, V_FIXED };

static const struct { const char *name, *value; } macros[] = {
    [V_I] = { "i", NULL },
    [V_MAIL_ADDR] = { "mail_addr", NULL },
    [V_RCPT_ADDR] = { "rcpt_addr", NULL },
    [V_FIXED] = { "j", "mx.solarmora.com" },
    { "daemon_name", "mx.solarmora.com" },
    { "daemon_addr", "192.0.2.25" },
    { "daemon_port", "25" },
    { "v", "Postfix 3.7.11" },
    { "_", "mail.customer.example [192.0.2.1]" },
    { "client_addr", "192.0.2.1" },
    { "client_name", "mail.customer.example" },
    { "client_port", "40000" },
    { "client_ptr", "mail.customer.example" },
    { "client_resolve", "OK" },
    { "client_connections", "1" },
    { "mail_host", "customer.example" },
    { "mail_mailer", "smtp" },
    { "rcpt_host", "solarmora.com" },
    { "rcpt_mailer", "virtual" },
};
#define KNOWN_MACROS (int) (sizeof macros / sizeof *macros)

enum event { E_OPTNEG, E_CONNECT, E_HELO, E_MAIL, E_RCPT, E_DATA, E_HEADER, E_EOH, E_BODY, E_EOM, EVENTS };

static const struct { char command; int macro_list; unsigned no, nr; } events[EVENTS] = {
    [E_OPTNEG] = { 'O', -1, 0, 0 },
    [E_CONNECT] = { 'C', M_CONNECT, NOCONNECT, NR_CONN },
    [E_HELO] = { 'H', M_HELO, NOHELO, NR_HELO },
    [E_MAIL] = { 'M', M_MAIL, NOMAIL, NR_MAIL },
    [E_RCPT] = { 'R', M_RCPT, NORCPT, NR_RCPT },
    [E_DATA] = { 'T', M_DATA, NODATA, NR_DATA },
    [E_HEADER] = { 'L', M_EOH, NOHDRS, NR_HDR },
    [E_EOH] = { 'N', M_EOH, NOEOH, NR_EOH },
    [E_BODY] = { 'B', M_EOM, NOBODY, NR_BODY },
    [E_EOM] = { 'E', M_EOM, 0, 0 },
};

struct options {
    const char *address;
    int connections, messages, idle, rules, match, headers, body;
    long total;
};

struct buffer {
    unsigned char *data;
    size_t length, room;
};

struct connection {
    int fd;
    int inet;
    int idle; /* sends one message and then nothing */
    enum event at; /* the event whose reply is waited for */
    int part; /* which header field or body chunk comes next */
    char skip; /* command that SMFIR_SKIP switched off */
    unsigned steps;
    signed char lists[MACRO_LISTS][KNOWN_MACROS + 1]; /* the macros of each list that have a value, ended by -1 */
    struct buffer out, in;
    size_t sent, taken;
    int in_connection; /* messages so far */
    /* the message */
    long serial;
    int matching, rule;
    char queue_id[24], sender[64], folded[64], raw[64];
    int adds, copies, deletes, markers, misordered;
    int64_t began, data_sent, content_sent;
};

struct samples {
    uint32_t *us10; /* tenths of a microsecond */
    long count;
};

static struct options options = { NULL, 10, 10, 0, 1000, 100, 12, 4096, 10000 };
static int poller;
static long started, finished, matched, idle_open;
static long edit_errors, reply_errors, io_errors;
static char first_error[512];
static struct samples data_time, content_time, whole_time;
static unsigned char *body;
static unsigned seen_steps, seen_actions;

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void note(long *counter, const char *format, ...)
{
    va_list arguments;

    if ((*counter)++ > 0 || first_error[0] != 0)
        return;
    va_start(arguments, format);
    vsnprintf(first_error, sizeof first_error, format, arguments);
    va_end(arguments);
}

static void sample(struct samples *samples, int64_t from, int64_t to)
{
    int64_t value = (to - from) / 100;

    samples->us10[samples->count++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t) value;
}

/* --- what goes out --- */

static void put(struct buffer *buffer, const void *data, size_t length)
{
    if (buffer->length + length > buffer->room) {
        buffer->room = 2 * (buffer->length + length) + 4096;
        if ((buffer->data = realloc(buffer->data, buffer->room)) == NULL)
            die("realloc");
    }
    memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
}

static void put_text(struct buffer *buffer, const char *text)
{
    put(buffer, text, strlen(text) + 1);
}

static void put_long(struct buffer *buffer, uint32_t value)
{
    value = htonl(value);
    put(buffer, &value, 4);
}

static size_t begin(struct buffer *buffer, char command)
{
    put_long(buffer, 0);
    put(buffer, &command, 1);
    return buffer->length - 1;
}

static void end(struct buffer *buffer, size_t start)
{
    uint32_t length = htonl((uint32_t) (buffer->length - start));

    memcpy(buffer->data + start - 4, &length, 4);
}

static const char *macro_value(const struct connection *c, int macro, enum event event)
{
    switch (macro) {
    case V_I:
        return event >= E_DATA ? c->queue_id : NULL;
    case V_MAIL_ADDR:
        return event >= E_MAIL ? c->sender : NULL;
    case V_RCPT_ADDR:
        return event >= E_RCPT ? c->folded : NULL;
    default:
        return macros[macro].value;
    }
}

static void put_macros(struct connection *c, enum event event)
{
    const signed char *list = c->lists[events[event].macro_list];
    size_t start = begin(&c->out, 'D');

    put(&c->out, &events[event].command, 1);
    for (; *list >= 0; list++) {
        const char *value = macro_value(c, *list, event);
        const char *name = macros[*list].name;

        if (value == NULL)
            continue;
        if (name[1] == 0) {
            put_text(&c->out, name);
        } else {
            put(&c->out, "{", 1);
            put(&c->out, name, strlen(name));
            put(&c->out, "}", 2);
        }
        put_text(&c->out, value);
    }
    end(&c->out, start);
}

static void put_header(struct connection *c, int which)
{
    static const char *const fixed[][2] = {
        { "Received", "from mail.customer.example (mail.customer.example [192.0.2.1])\n\tby mx.solarmora.com (Postfix) with ESMTPS id "
                      "4bXq1Z0001z9\n\tfor <help@solarmora.com>; Mon, 21 Jul 2025 10:00:00 +0200 (CEST)" },
        { "DKIM-Signature", "v=1; a=rsa-sha256; c=relaxed/relaxed; d=customer.example; s=2025;\n\tt=1753084800; "
                            "h=from:to:subject:date:message-id:mime-version:content-type;\n\tbh="
                            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\n\tb=dGhpcyBpcyBub3QgYSByZWFsIHNpZ25hdHVyZSBidXQgaXQgaGFz"
                            "IHRoZSBsZW5n\n\tdGggb2Ygb25lLCB3aGljaCBpcyBhbGwgdGhhdCBtYXR0ZXJzIGhlcmUgYW5kIG5vd2hlcmUgZWxz\n\tZS4gVGhl"
                            "IHF1aWNrIGJyb3duIGZveCBqdW1wcyBvdmVyIHRoZSBsYXp5IGRvZy4gMDEyMzQ1Njc4OQ==" },
        { "From", NULL },
        { "To", NULL },
        { "Subject", "Re: my order of last week has not arrived" },
        { "Date", "Mon, 21 Jul 2025 10:00:00 +0200" },
        { "Message-ID", NULL },
        { "MIME-Version", "1.0" },
        { "Content-Type", "text/plain; charset=utf-8" },
        { "Content-Transfer-Encoding", "8bit" },
        { "X-Spam-Flag", "NO" },
        { "User-Agent", "Mozilla Thunderbird" },
    };
    int count = (int) (sizeof fixed / sizeof *fixed);
    const char *name = which < count ? fixed[which][0] : "X-Filler";
    const char *value = which < count ? fixed[which][1] : "one of the many header fields that nobody reads";
    size_t start = begin(&c->out, 'L');

    put_text(&c->out, name);
    if (c->steps & HDR_LEADSPC)
        put(&c->out, " ", 1);
    if (value != NULL) {
        put_text(&c->out, value);
    } else if (name[0] == 'M') {
        char text[64];

        put(&c->out, text, (size_t) snprintf(text, sizeof text, "<%ld.bench@customer.example>", c->serial) + 1);
    } else {
        put(&c->out, name[0] == 'F' ? "A Customer <" : "<", name[0] == 'F' ? 12 : 1);
        put(&c->out, name[0] == 'F' ? c->sender : c->raw, strlen(name[0] == 'F' ? c->sender : c->raw));
        put(&c->out, ">", 2);
    }
    end(&c->out, start);
}

static void put_event(struct connection *c, enum event event)
{
    size_t start = begin(&c->out, events[event].command);
    uint16_t port = htons(40000);
    int chunk;

    switch (event) {
    case E_OPTNEG:
        put_long(&c->out, 6);
        put_long(&c->out, ALL_ACTIONS);
        put_long(&c->out, ALL_STEPS);
        break;
    case E_CONNECT:
        put_text(&c->out, "mail.customer.example");
        put(&c->out, "4", 1);
        put(&c->out, &port, 2);
        put_text(&c->out, "192.0.2.1");
        break;
    case E_HELO:
        put_text(&c->out, "mail.customer.example");
        break;
    case E_MAIL:
    case E_RCPT:
        put(&c->out, "<", 1);
        put(&c->out, event == E_MAIL ? c->sender : c->raw, strlen(event == E_MAIL ? c->sender : c->raw));
        put(&c->out, ">", 2);
        if (event == E_MAIL)
            put_text(&c->out, "SIZE=4711");
        break;
    case E_BODY:
        chunk = options.body - c->part * 65535;
        put(&c->out, body, (size_t) (chunk > 65535 ? 65535 : chunk));
        break;
    default: /* DATA, EOH and EOM have no argument; a header field has its own function */
        break;
    }
    end(&c->out, start);
}

/* --- the connection --- */

static void set_macro_list(struct connection *c, int list, const char *names)
{
    int count = 0;

    while (*names != 0) {
        size_t length = strcspn(names, " ,");
        const char *name = names;
        size_t bare = length;

        if (length > 2 && name[0] == '{' && name[length - 1] == '}') {
            name++;
            bare -= 2;
        }
        for (int i = 0; i < KNOWN_MACROS && count < KNOWN_MACROS; i++)
            if (strlen(macros[i].name) == bare && memcmp(macros[i].name, name, bare) == 0)
                c->lists[list][count++] = (signed char) i;
        names += length;
        names += strspn(names, " ,");
    }
    c->lists[list][count] = -1;
}

static int dial(int *inet)
{
    struct sockaddr_un unix_address = { .sun_family = AF_UNIX };
    struct sockaddr_in inet_address = { .sin_family = AF_INET };
    struct sockaddr *address = (struct sockaddr *) &unix_address;
    socklen_t size = sizeof unix_address;
    int port, on = 1;
    char host[64];
    int fd;

    *inet = strncmp(options.address, "inet:", 5) == 0;
    if (*inet) {
        if (sscanf(options.address + 5, "%d@%63s", &port, host) != 2 || inet_pton(AF_INET, host, &inet_address.sin_addr) != 1) {
            fprintf(stderr, "load: \"%s\" is not inet:PORT@ADDRESS\n", options.address);
            exit(2);
        }
        inet_address.sin_port = htons((uint16_t) port);
        address = (struct sockaddr *) &inet_address;
        size = sizeof inet_address;
    } else {
        const char *path = options.address + (strncmp(options.address, "unix:", 5) == 0 ? 5 : 0);

        snprintf(unix_address.sun_path, sizeof unix_address.sun_path, "%s", path);
    }
    if ((fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
        die("socket");
    if (options.total == 0) { /* the responder */
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (!*inet)
            unlink(unix_address.sun_path);
        if (bind(fd, address, size) < 0 || listen(fd, 1024) < 0)
            die(options.address);
        return fd;
    }
    while (connect(fd, address, size) < 0)
        if (errno != EINTR && errno != EAGAIN)
            die(options.address);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        die("fcntl");
    return fd;
}

static void pump(struct connection *c);
static void flush(struct connection *c);

static void dial_again(struct connection *c)
{
    struct epoll_event interest = { .events = EPOLLIN, .data.ptr = c };

    c->fd = dial(&c->inet);
    c->out.length = c->in.length = c->sent = c->taken = 0;
    c->in_connection = 0;
    c->skip = 0;
    for (int i = 0; i < MACRO_LISTS; i++)
        set_macro_list(c, i, default_macros[i]);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &interest) < 0)
        die("epoll_ctl");
    c->at = E_OPTNEG;
    put_event(c, E_OPTNEG);
    flush(c);
}

static void hang_up(struct connection *c, int polite)
{
    if (polite) { /* smtpd forgets the message, then the EHLO, and each time sends an ABORT */
        end(&c->out, begin(&c->out, 'A'));
        end(&c->out, begin(&c->out, 'Q'));
        flush(c);
    }
    close(c->fd);
    c->fd = -1;
}

/* A write of Postfix's is at most its buffer: 4096 bytes on a Unix socket, as much as a segment takes on TCP. */
static void flush(struct connection *c)
{
    while (c->sent < c->out.length) {
        size_t length = c->out.length - c->sent;
        ssize_t done;

        if (!c->inet && length > 4096)
            length = 4096;
        done = send(c->fd, c->out.data + c->sent, length, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            struct epoll_event interest = { .events = EPOLLIN | (errno == EAGAIN ? EPOLLOUT : 0), .data.ptr = c };

            if (errno != EAGAIN)
                note(&io_errors, "write: %s", strerror(errno));
            epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &interest);
            return;
        }
        c->sent += (size_t) done;
    }
    c->out.length = c->sent = 0;
}

static void next_message(struct connection *c)
{
    if (started >= options.total || c->in_connection >= options.messages) {
        hang_up(c, 1);
        if (started < options.total)
            dial_again(c);
        return;
    }
    c->serial = started++;
    c->in_connection++;
    c->matching = (int) (c->serial % 100) * 37 % 100 < options.match;
    c->rule = (int) (c->serial % options.rules);
    c->adds = c->copies = c->deletes = c->markers = c->misordered = 0;
    c->part = 0;
    snprintf(c->queue_id, sizeof c->queue_id, "4bX%07lXz9", c->serial & 0xfffffff);
    snprintf(c->sender, sizeof c->sender, "customer%04ld@customer.example", c->serial % 10000);
    if (c->matching) {
        snprintf(c->folded, sizeof c->folded, "help%04d@solarmora.com", c->rule);
        /* Postfix passes on what the client typed; every fourth client shouts. */
        snprintf(c->raw, sizeof c->raw, c->serial % 4 == 3 ? "Help%04d@SolarMora.com" : "help%04d@solarmora.com", c->rule);
    } else {
        snprintf(c->folded, sizeof c->folded, "user%04d@solarmora.com", c->rule);
        snprintf(c->raw, sizeof c->raw, "user%04d@solarmora.com", c->rule);
    }
    c->began = now_ns();
    c->at = E_MAIL;
    pump(c);
}

static void message_done(struct connection *c)
{
    int64_t now = now_ns();

    if (c->matching) {
        matched++;
        sample(&content_time, c->content_sent, now);
        if (c->adds != 1 || c->copies != 1 || c->deletes != 1 || c->markers != 1 || c->misordered)
            note(&edit_errors, "message %ld: %d targets, %d copies, %d deletes, %d markers%s", c->serial, c->adds, c->copies,
                 c->deletes, c->markers, c->misordered ? ", an add after the delete" : "");
    }
    sample(&whole_time, c->began, now);
    finished++;
    end(&c->out, begin(&c->out, 'A'));
    if (c->idle) {
        idle_open++;
        c->at = EVENTS;
        return;
    }
    next_message(c);
}

/* Sends from event c->at on, up to one that is answered. */
static void pump(struct connection *c)
{
    for (;;) {
        enum event event = c->at;
        int more;

        if (event == E_HEADER && c->part == 0)
            c->content_sent = now_ns();
        if (event == E_BODY && (c->steps & NOBODY || c->part * 65535 >= options.body)) {
            c->at = E_EOM;
            continue;
        }
        if ((event == E_HEADER && (c->steps & NOHDRS || c->part >= options.headers)) || (event == E_EOH && c->steps & NOEOH)
            || c->skip == events[event].command) {
            /* cleanup does not even get to the macros then */
            c->part = 0;
            c->at++;
            continue;
        }
        c->skip = 0;
        if (event == E_DATA)
            c->data_sent = now_ns();
        put_macros(c, event);
        if (!(events[event].no & c->steps)) {
            if (event == E_HEADER)
                put_header(c, c->part);
            else
                put_event(c, event);
            if (!(events[event].nr & c->steps)) {
                flush(c);
                return;
            }
        }
        more = event == E_HEADER || event == E_BODY;
        if (more)
            c->part++;
        else
            c->at++, c->part = 0;
        if (event == E_HELO) {
            next_message(c);
            return;
        }
    }
}

static void proceed(struct connection *c)
{
    if (c->at == E_HEADER || c->at == E_BODY) {
        c->part++;
        pump(c);
    } else if (c->at == E_HELO) {
        next_message(c);
    } else if (c->at == E_EOM) {
        message_done(c);
    } else {
        c->at++;
        c->part = 0;
        pump(c);
    }
}

static int negotiated(struct connection *c, const unsigned char *data, size_t length)
{
    uint32_t fields[3];
    size_t at = 12;

    if (length < 12)
        return 0;
    memcpy(fields, data, 12);
    seen_actions = ntohl(fields[1]);
    seen_steps = c->steps = ntohl(fields[2]);
    if (ntohl(fields[0]) > 6 || seen_actions & ~ALL_ACTIONS)
        return 0;
    while (at + 5 <= length) {
        uint32_t list;
        const char *names = (const char *) data + at + 4;

        memcpy(&list, data + at, 4);
        list = ntohl(list);
        if (list < MACRO_LISTS && names[0] != 0) /* an empty list is Postfix's own list */
            set_macro_list(c, (int) list, names);
        at += 4 + strnlen(names, length - at - 4) + 1;
    }
    return 1;
}

static void bare(char *address)
{
    size_t length = strlen(address);

    if (length > 1 && address[0] == '<' && address[length - 1] == '>') {
        memmove(address, address + 1, length - 2);
        address[length - 2] = 0;
    }
}

static void check_add(struct connection *c, char *address, const char *parameters)
{
    char target[64], copy[64], wanted[2][128];

    bare(address);
    snprintf(target, sizeof target, "case%04d@case.my-crm.example", c->rule);
    snprintf(copy, sizeof copy, "team%04d@solarmora.com", c->rule);
    snprintf(wanted[0], sizeof wanted[0], "NOTIFY=NEVER ORCPT=rfc822;%s", c->raw);
    snprintf(wanted[1], sizeof wanted[1], "ORCPT=rfc822;%s NOTIFY=NEVER", c->raw);
    if (c->deletes > 0)
        c->misordered = 1;
    if (strcmp(address, target) == 0 && (strcmp(parameters, wanted[0]) == 0 || strcmp(parameters, wanted[1]) == 0))
        c->adds++;
    else if (strcmp(address, copy) == 0 && strcmp(parameters, "NOTIFY=NEVER") == 0)
        c->copies++;
    else
        note(&edit_errors, "message %ld: unexpected addrcpt of \"%.80s\" \"%.120s\"", c->serial, address, parameters);
}

static void check_edit(struct connection *c, char command, unsigned char *data, size_t length)
{
    char *text = (char *) data;
    const char *second;

    if (c->at != E_EOM || length == 0 || data[length - 1] != 0) {
        note(&edit_errors, "message %ld: edit '%c' at event %d", c->serial, command, c->at);
        return;
    }
    if (command == 'i') /* an index comes first */
        text += 4, length -= 4;
    second = strlen(text) + 1 < length ? text + strlen(text) + 1 : "";
    switch (command) {
    case '2':
        check_add(c, text, second);
        break;
    case '-':
        bare(text);
        if (c->matching && strcmp(text, c->raw) == 0)
            c->deletes++;
        else
            note(&edit_errors, "message %ld: unexpected delrcpt of \"%.80s\"", c->serial, text);
        break;
    case 'h':
    case 'i':
        if (*second == ' ')
            second++;
        if (strcasecmp(text, "X-CRM-Milter") == 0 && strspn(second, "0123456789abcdef") == 16 && second[16] == 0)
            c->markers++;
        else
            note(&edit_errors, "message %ld: unexpected header \"%.80s\": \"%.80s\"", c->serial, text, second);
        break;
    default:
        note(&edit_errors, "message %ld: unexpected edit '%c'", c->serial, command);
    }
}

/* Returns 0 if the connection is gone. */
static int take_packet(struct connection *c, unsigned char *packet, size_t length)
{
    char command = (char) packet[0];
    int64_t now;

    if (c->at == E_OPTNEG) {
        if (command != 'O' || !negotiated(c, packet + 1, length - 1)) {
            note(&reply_errors, "wrong answer '%c' to the negotiation", command);
            return 0;
        }
        c->at = E_CONNECT;
        pump(c);
        return c->fd >= 0;
    }
    switch (command) {
    case 'c':
    case 'a':
        if (length != 1)
            break;
        if (c->at == E_DATA) {
            now = now_ns();
            sample(&data_time, c->data_sent, now);
            if ((command == 'a') == c->matching)
                note(&reply_errors, "message %ld: '%c' at DATA", c->serial, command);
            if (command == 'a') {
                message_done(c);
                return c->fd >= 0;
            }
        } else if (command == 'a' && c->at != E_EOM) {
            break;
        }
        proceed(c);
        return c->fd >= 0;
    case 's':
        c->skip = events[c->at].command;
        proceed(c);
        return c->fd >= 0;
    case 'p':
        return 1;
    case '+':
    case '2':
    case '-':
    case 'h':
    case 'i':
    case 'm':
    case 'b':
    case 'e':
    case 'q':
        check_edit(c, command, packet + 1, length - 1);
        return 1;
    }
    note(&reply_errors, "message %ld: reply '%c' \"%.*s\" to event %d", c->serial, command, (int) (length - 1 > 80 ? 80 : length - 1),
         packet + 1, c->at);
    return 0;
}

static void receive(struct connection *c)
{
    ssize_t got;

    if (c->in.room - c->in.length < 16384) {
        c->in.room = c->in.length + 65536;
        if ((c->in.data = realloc(c->in.data, c->in.room)) == NULL)
            die("realloc");
    }
    got = recv(c->fd, c->in.data + c->in.length, c->in.room - c->in.length, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        note(&io_errors, "message %ld: %s at event %d", c->serial, got == 0 ? "connection closed" : strerror(errno), c->at);
        goto broken;
    }
    c->in.length += (size_t) got;
    for (c->taken = 0; c->in.length - c->taken >= 5;) {
        unsigned char *packet = c->in.data + c->taken;
        uint32_t length;
        int fd = c->fd;

        memcpy(&length, packet, 4);
        length = ntohl(length);
        if (length == 0 || length > 1 << 20) {
            note(&reply_errors, "packet of %u bytes", length);
            goto broken;
        }
        if (c->in.length - c->taken - 4 < length)
            break;
        c->taken += 4 + length;
        if (!take_packet(c, packet + 4, length)) {
            if (c->fd >= 0)
                goto broken;
            return;
        }
        if (c->fd != fd || c->in.length == 0) /* a new connection has begun */
            return;
    }
    memmove(c->in.data, c->in.data + c->taken, c->in.length - c->taken);
    c->in.length -= c->taken;
    return;

broken: /* its message counts as finished, so that the run ends */
    hang_up(c, 0);
    if (c->at >= E_MAIL && c->at < EVENTS)
        finished++;
    if (started < options.total)
        dial_again(c);
}

/* --- the responder --- */

struct answer {
    int fd, rule, matching;
    char raw[64];
    struct buffer out;
    unsigned char in[65536];
    size_t length;
};

static void put_packet(struct buffer *out, char command, const char *first, const char *second)
{
    size_t start = begin(out, command);

    if (first != NULL)
        put_text(out, first);
    if (second != NULL)
        put_text(out, second);
    end(out, start);
}

static void respond_to(struct answer *a, char command, const unsigned char *data, size_t length)
{
    char text[128], parameters[128];

    switch (command) {
    case 'O': {
        size_t start = begin(&a->out, 'O');

        put_long(&a->out, 6);
        put_long(&a->out, 0x8d);
        put_long(&a->out, NOCONNECT | NOHELO | NOBODY | NR_CONN | NR_HELO | NR_MAIL | NR_RCPT | NR_HDR | NR_EOH);
        for (uint32_t list = 0; list < MACRO_LISTS; list++) {
            put_long(&a->out, list);
            put_text(&a->out, "i");
        }
        end(&a->out, start);
        break;
    }
    case 'R':
        a->matching = length > 5 && strncasecmp((const char *) data, "<help", 5) == 0;
        snprintf(a->raw, sizeof a->raw, "%.*s", (int) strcspn((const char *) data + 1, ">"), (const char *) data + 1);
        a->rule = atoi((const char *) data + 5);
        break;
    case 'T':
        put_packet(&a->out, a->matching ? 'c' : 'a', NULL, NULL);
        break;
    case 'E':
        snprintf(text, sizeof text, "case%04d@case.my-crm.example", a->rule);
        snprintf(parameters, sizeof parameters, "NOTIFY=NEVER ORCPT=rfc822;%s", a->raw);
        put_packet(&a->out, '2', text, parameters);
        snprintf(text, sizeof text, "team%04d@solarmora.com", a->rule);
        put_packet(&a->out, '2', text, "NOTIFY=NEVER");
        put_packet(&a->out, 'h', "X-CRM-Milter", "0123456789abcdef");
        put_packet(&a->out, '-', a->raw, NULL);
        put_packet(&a->out, 'c', NULL, NULL);
        break;
    }
}

static void respond(void)
{
    int inet;
    int listener = dial(&inet);
    struct epoll_event ready[64], interest = { .events = EPOLLIN, .data.ptr = NULL };

    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &interest);
    for (;;) {
        int count = epoll_wait(poller, ready, 64, -1);

        for (int i = 0; i < count; i++) {
            struct answer *a = ready[i].data.ptr;
            size_t at = 0;
            ssize_t got;

            if (a == NULL) {
                a = calloc(1, sizeof *a);
                a->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                interest.data.ptr = a;
                epoll_ctl(poller, EPOLL_CTL_ADD, a->fd, &interest);
                continue;
            }
            got = recv(a->fd, a->in + a->length, sizeof a->in - a->length, 0);
            if (got <= 0) {
                close(a->fd);
                free(a->out.data);
                free(a);
                continue;
            }
            a->length += (size_t) got;
            while (a->length - at >= 5) {
                uint32_t length;

                memcpy(&length, a->in + at, 4);
                length = ntohl(length);
                if (a->length - at - 4 < length)
                    break;
                respond_to(a, (char) a->in[at + 4], a->in + at + 5, length - 1);
                at += 4 + length;
            }
            memmove(a->in, a->in + at, a->length - at);
            a->length -= at;
            if (a->out.length > 0 && send(a->fd, a->out.data, a->out.length, MSG_NOSIGNAL) < 0)
                note(&io_errors, "send");
            a->out.length = 0;
        }
    }
}

/* --- the run --- */

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return (x > y) - (x < y);
}

static void print_samples(const char *name, struct samples *samples)
{
    double p50 = 0, p99 = 0, max = 0;

    if (samples->count > 0) {
        qsort(samples->us10, (size_t) samples->count, sizeof *samples->us10, ascending);
        p50 = samples->us10[samples->count / 2] / 10.0;
        p99 = samples->us10[samples->count * 99 / 100] / 10.0;
        max = samples->us10[samples->count - 1] / 10.0;
    }
    printf("\"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}", name, p50, p99, max);
}

static double cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double) usage.ru_utime.tv_sec + (double) usage.ru_stime.tv_sec
           + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void report(double seconds, double cpu)
{
    printf("{\"messages\": %ld, \"matching\": %ld, \"seconds\": %.4f, \"per_second\": %.1f, ", finished, matched, seconds,
           (double) finished / seconds);
    printf("\"latency_us\": {");
    print_samples("data", &data_time);
    printf(", ");
    print_samples("content", &content_time);
    printf(", ");
    print_samples("whole", &whole_time);
    printf("}, \"errors\": {\"edits\": %ld, \"replies\": %ld, \"io\": %ld}, ", edit_errors, reply_errors, io_errors);
    for (char *c = first_error; *c != 0; c++)
        if (*c == '"' || *c == '\\' || (unsigned char) *c < ' ')
            *c = '\'';
    printf("\"first_error\": \"%s\", \"load_cpu\": %.3f, ", first_error, cpu / seconds);
    printf("\"negotiated\": {\"actions\": %u, \"steps\": %u}}\n", seen_actions, seen_steps);
}

static void run(void)
{
    struct connection *connections = calloc((size_t) (options.connections + options.idle), sizeof *connections);
    struct epoll_event ready[64];
    int64_t begin_ns;
    double cpu;

    data_time.us10 = calloc((size_t) (options.total + options.idle), sizeof(uint32_t));
    content_time.us10 = calloc((size_t) (options.total + options.idle), sizeof(uint32_t));
    whole_time.us10 = calloc((size_t) (options.total + options.idle), sizeof(uint32_t));
    body = malloc((size_t) options.body + 1);
    for (int i = 0; i < options.body; i++)
        body[i] = i % 72 == 70 ? '\r' : i % 72 == 71 ? '\n' : 'x';
    options.total += options.idle;
    for (int i = 0; i < options.idle; i++) {
        connections[options.connections + i].idle = 1;
        dial_again(&connections[options.connections + i]);
    }
    while (idle_open < options.idle && io_errors + reply_errors == 0) {
        int count = epoll_wait(poller, ready, 64, 10000);

        if (count == 0)
            break;
        for (int i = 0; i < count; i++)
            receive(ready[i].data.ptr);
    }
    data_time.count = content_time.count = whole_time.count = 0;
    options.total -= options.idle;
    started = finished = matched = 0;

    begin_ns = now_ns();
    cpu = cpu_seconds();
    for (int i = 0; i < options.connections && i < options.total; i++)
        dial_again(&connections[i]);
    while (finished < options.total) {
        int count = epoll_wait(poller, ready, 64, 30000);

        if (count == 0) {
            note(&io_errors, "no answer for 30 seconds");
            break;
        }
        for (int i = 0; i < count; i++) {
            struct connection *c = ready[i].data.ptr;

            if (ready[i].events & EPOLLOUT) {
                struct epoll_event interest = { .events = EPOLLIN, .data.ptr = c };

                epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &interest);
                flush(c);
            }
            if (ready[i].events & ~(uint32_t) EPOLLOUT && c->fd >= 0)
                receive(c);
        }
        if (io_errors + reply_errors > 1000)
            break;
    }
    report((double) (now_ns() - begin_ns) / 1e9, cpu_seconds() - cpu);
}

int main(int argc, char **argv)
{
    int option, responder = 0;

    while ((option = getopt(argc, argv, "c:m:n:p:r:H:b:i:s")) != -1) {
        switch (option) {
        case 'c': options.connections = atoi(optarg); break;
        case 'm': options.messages = atoi(optarg); break;
        case 'n': options.total = atol(optarg); break;
        case 'p': options.match = atoi(optarg); break;
        case 'r': options.rules = atoi(optarg); break;
        case 'H': options.headers = atoi(optarg); break;
        case 'b': options.body = atoi(optarg); break;
        case 'i': options.idle = atoi(optarg); break;
        case 's': responder = 1; break;
        default: return 2;
        }
    }
    if (optind != argc - 1 || options.connections < 1 || options.messages < 1 || options.total < 1 || options.rules < 1
        || options.rules > 10000 || options.body < 0 || options.headers < 0 || options.idle < 0) {
        fprintf(stderr, "usage: load [-s] [-c N] [-m N] [-n N] [-p N] [-r N] [-H N] [-b N] [-i N] SOCKET\n");
        return 2;
    }
    options.address = argv[optind];
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0)
        die("epoll_create1");
    umask(0);
    if (responder) {
        options.total = 0;
        respond();
    }
    run();
    return edit_errors + reply_errors + io_errors > 0;
}
