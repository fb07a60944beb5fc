/*
 * The C floor: the least that a libmilter filter can do for our work.
 *
 *     cc -O2 -o floor floor.c -lmilter -lpthread
 *     floor SOCKET [RULES]          SOCKET as in smfi_setconn(3): unix:PATH or inet:PORT@HOST
 *
 * It knows RULES (1000) addresses, help0000@solarmora.com and on, in a hash table. A message to one of them gets at the
 * end of message the edits that crm-milter makes for a rule with replace_with and one also_deliver_to; every other message is
 * accepted at DATA. It asks Postfix for no event, reply, macro or action that this does not need. The addresses are those that
 * load.c sends to and that bench.py writes into the configuration of crm-milter.
 *
 * It has no configuration, log, metrics, verdicts or error handling beyond a tempfail: it is a measure, not a filter to run.
 */
#include <ctype.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

#define MARKER "X-CRM-Milter"
#define ADDRESS 256

struct rule {
    char recipient[64];
    char target[64];
    char copy[64];
    char marker[17];
    struct rule *next;
};

struct session {
    struct rule *rule; /* of the message's matched recipient, or NULL */
    char raw[ADDRESS]; /* that recipient as the client wrote it, without <> */
    int looped;
};

static struct rule *rules;
static struct rule **buckets;
static uint64_t bucket_mask;

static uint64_t hash(const char *text)
{
    uint64_t value = 1469598103934665603ULL;

    while (*text != 0)
        value = (value ^ (unsigned char) *text++) * 1099511628211ULL;
    return value;
}

static void make_rules(int count)
{
    uint64_t size = 16;

    while (size < 2 * (uint64_t) count)
        size *= 2;
    bucket_mask = size - 1;
    buckets = calloc(size, sizeof *buckets);
    rules = calloc(count + 1, sizeof *rules);
    for (int i = 0; i < count; i++) {
        struct rule *rule = &rules[i];
        struct rule **bucket;

        snprintf(rule->recipient, sizeof rule->recipient, "help%04d@solarmora.com", i);
        snprintf(rule->target, sizeof rule->target, "case%04d@case.my-crm.example", i);
        snprintf(rule->copy, sizeof rule->copy, "team%04d@solarmora.com", i);
        snprintf(rule->marker, sizeof rule->marker, "%016llx", (unsigned long long) hash(rule->target));
        bucket = &buckets[hash(rule->recipient) & bucket_mask];
        rule->next = *bucket;
        *bucket = rule;
    }
}

static struct rule *find(const char *folded)
{
    struct rule *rule = buckets[hash(folded) & bucket_mask];

    while (rule != NULL && strcmp(rule->recipient, folded) != 0)
        rule = rule->next;
    return rule;
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long f2, unsigned long f3,
                             unsigned long *want_actions, unsigned long *want_steps, unsigned long *want_f2,
                             unsigned long *want_f3)
{
    unsigned long need = SMFIF_ADDHDRS | SMFIF_ADDRCPT | SMFIF_ADDRCPT_PAR | SMFIF_DELRCPT;
    unsigned long skip = SMFIP_NOCONNECT | SMFIP_NOHELO | SMFIP_NOBODY | SMFIP_NOUNKNOWN | SMFIP_NR_CONN
                         | SMFIP_NR_HELO | SMFIP_NR_MAIL | SMFIP_NR_RCPT | SMFIP_NR_HDR | SMFIP_NR_EOH | SMFIP_NR_BODY
                         | SMFIP_NR_UNKN;

    (void) f2, (void) f3;
    if ((actions & need) != need)
        return SMFIS_REJECT;
    /* An empty list would mean Postfix's default list: "i" is the shortest, and is absent until there is a queue id. */
    for (int stage = SMFIM_FIRST; stage <= SMFIM_LAST; stage++)
        if (smfi_setsymlist(ctx, stage, "i") != MI_SUCCESS)
            return SMFIS_REJECT;
    *want_actions = need;
    *want_steps = skip & steps;
    *want_f2 = *want_f3 = 0;
    return SMFIS_CONTINUE;
}

static sfsistat on_envfrom(SMFICTX *ctx, char **argv)
{
    struct session *session = smfi_getpriv(ctx);

    (void) argv;
    if (session == NULL) {
        if ((session = calloc(1, sizeof *session)) == NULL)
            return SMFIS_TEMPFAIL;
        smfi_setpriv(ctx, session);
    }
    session->rule = NULL;
    session->looped = 0;
    return SMFIS_NOREPLY;
}

static sfsistat on_envrcpt(SMFICTX *ctx, char **argv)
{
    struct session *session = smfi_getpriv(ctx);
    const char *address = argv[0];
    size_t length = strlen(address);
    char folded[ADDRESS];
    struct rule *rule;

    if (address[0] == '<' && address[length - 1] == '>') {
        address++;
        length -= 2;
    }
    if (length >= sizeof folded)
        return SMFIS_NOREPLY;
    for (size_t i = 0; i < length; i++)
        folded[i] = (char) tolower((unsigned char) address[i]);
    folded[length] = 0;
    if ((rule = find(folded)) != NULL) {
        session->rule = rule;
        memcpy(session->raw, address, length);
        session->raw[length] = 0;
    }
    return SMFIS_NOREPLY;
}

static sfsistat on_data(SMFICTX *ctx)
{
    struct session *session = smfi_getpriv(ctx);

    return session->rule != NULL ? SMFIS_CONTINUE : SMFIS_ACCEPT;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
    struct session *session = smfi_getpriv(ctx);

    if (strcasecmp(name, MARKER) == 0 && strcmp(value, session->rule->marker) == 0)
        session->looped = 1;
    return SMFIS_NOREPLY;
}

/*
 * Not declined: libmilter 8.17 ignores the end of a message that has no header field unless an end of header came first
 * (trans_ok() knows no way from DATA), and Postfix waits for its answer until milter_content_timeout.
 */
static sfsistat on_eoh(SMFICTX *ctx)
{
    (void) ctx;
    return SMFIS_NOREPLY;
}

static sfsistat on_eom(SMFICTX *ctx)
{
    struct session *session = smfi_getpriv(ctx);
    char parameters[64 + ADDRESS];

    if (session->looped)
        return SMFIS_CONTINUE;
    snprintf(parameters, sizeof parameters, "NOTIFY=NEVER ORCPT=rfc822;%s", session->raw);
    if (smfi_addrcpt_par(ctx, session->rule->target, parameters) != MI_SUCCESS
        || smfi_addrcpt_par(ctx, session->rule->copy, "NOTIFY=NEVER") != MI_SUCCESS
        || smfi_addheader(ctx, MARKER, session->rule->marker) != MI_SUCCESS
        || smfi_delrcpt(ctx, session->raw) != MI_SUCCESS)
        return SMFIS_TEMPFAIL;
    return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
    free(smfi_getpriv(ctx));
    smfi_setpriv(ctx, NULL);
    return SMFIS_CONTINUE;
}

static struct smfiDesc filter = {
    .xxfi_name = "floor",
    .xxfi_version = SMFI_VERSION,
    .xxfi_flags = SMFIF_ADDHDRS | SMFIF_ADDRCPT | SMFIF_ADDRCPT_PAR | SMFIF_DELRCPT,
    .xxfi_envfrom = on_envfrom,
    .xxfi_envrcpt = on_envrcpt,
    .xxfi_header = on_header,
    .xxfi_eoh = on_eoh,
    .xxfi_eom = on_eom,
    .xxfi_close = on_close,
    .xxfi_data = on_data,
    .xxfi_negotiate = on_negotiate,
};

/* libmilter sets no TCP_NODELAY; accepted sockets inherit it from the listening one. */
static void set_nodelay(void)
{
    int on = 1;

    for (int fd = 3; fd < 64; fd++) {
        int listening = 0, domain = 0;
        socklen_t size = sizeof listening;

        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening
            && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain != AF_UNIX)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: floor SOCKET [RULES]\n");
        return 2;
    }
    make_rules(argc == 3 ? atoi(argv[2]) : 1000);
    umask(0);
    if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS || smfi_opensocket(1) != MI_SUCCESS) {
        fprintf(stderr, "floor: cannot listen on \"%s\"\n", argv[1]);
        return 1;
    }
    set_nodelay();
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
