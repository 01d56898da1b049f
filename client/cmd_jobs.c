#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "jobs.h"
#include "json_message.h"
#include "table.h"
#include "text.h"

static const struct draft_option options[] = {
    {.name = "state",
     .value = DRAFT_VALUE_STRING,
     .metavar = "STATE",
     .words = "queued preparing running paused cancelling succeeded failed cancelled",
     .help = "only jobs in this state: queued, preparing, running, paused, cancelling, succeeded, failed, cancelled",
     .repeat = true},
    {.name = "limit",
     .letter = 'n',
     .value = DRAFT_VALUE_INT,
     .metavar = "N",
     .help = "the newest N (default: 20 in a terminal's table, else all)"},
    {.name = "all", .letter = 'a', .help = "all of them"},
    {.name = "quiet", .letter = 'q', .help = "ids only, one a line"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

static const struct draft_column columns[] = {
    {.title = "JOB"},
    {.title = "NAME", .cut = true},
    {.title = "STATE"},
    {.title = "STEP", .right = true},
    {.title = "REWARD", .right = true},
    {.title = "KL", .right = true, .spare = true},
    {.title = "LPIPS", .right = true, .spare = true},
    {.title = "LEFT", .right = true},
    {.title = "AGE", .right = true},
    {.title = "REASON", .cut = true},
};

static void add_row(struct draft_table *table, const draft_job *job)
{
    const Draftd__V1__Progress *p = job->progress;
    char text[32];
    draft_table_row(table);
    draft_table_cell(table, "%s", job->id);
    draft_table_cell(table, "%s", draft_job_title(job));
    draft_table_cell(table, "%s", draft_state_name(job->state));
    if (p && p->total_steps > 0)
        draft_table_cell(table, "%lld/%lld", (long long)p->step, (long long)p->total_steps);
    else
        draft_table_cell(table, "-");
    bool began = p && p->step > 0;
    draft_table_cell(table, "%s", draft_format_number(began ? p->reward : NAN, text, sizeof text));
    draft_table_cell(table, "%s", draft_format_number(began ? p->kl : NAN, text, sizeof text));
    draft_table_cell(table, "%s", draft_format_number(began ? p->lpips : NAN, text, sizeof text));
    bool running = job->state == DRAFTD__V1__JOB__STATE__STATE_RUNNING;
    draft_table_cell(table, "%s", draft_format_duration(running && p ? p->eta_seconds : -1, text, sizeof text));
    draft_table_cell(table, "%s",
                     draft_format_duration((double)(draft_now_us() - job->create_time_us) / 1e6, text, sizeof text));
    if (*job->reason)
        draft_table_cell(table, "%s", job->reason);
    else if (job->queue_position > 0)
        draft_table_cell(table, "place %lld in the queue", (long long)job->queue_position);
    else
        draft_table_cell(table, "%s", "");
}

static bool read_states(const struct draft_arguments *arguments, Draftd__V1__Job__State *states, size_t *count,
                        struct draft_error *err)
{
    const char *names[16];
    int known = 0;
    for (int s = DRAFTD__V1__JOB__STATE__STATE_QUEUED; s <= DRAFTD__V1__JOB__STATE__STATE_CANCELLED; s++)
        names[known++] = draft_state_name((draft_job_state)s);
    *count = 0;
    for (int i = 0; i < arguments->count; i++) {
        const struct draft_argument *given = &arguments->given[i];
        int found = -1;
        if (strcmp(given->option->name, "state") != 0)
            continue;
        for (int s = 0; s < known; s++)
            if (!strcmp(names[s], given->text))
                found = s + 1;
        if (found < 0) {
            char list[160] = "";
            for (int s = 0, n = 0; s < known; s++)
                n += snprintf(list + n, sizeof list - (size_t)n, "%s%s",
                              s == 0          ? ""
                              : s + 1 < known ? ", "
                                              : " or ",
                              names[s]);
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "--state \"%.60s\": expected %s", given->text, list);
        }
        if (*count < 16)
            states[(*count)++] = (Draftd__V1__Job__State)found;
    }
    return true;
}

struct output {
    struct draft_table *table; /* one of the two, or neither: ids only */
    json_t *list;
    int64_t left;  /* how many more are wanted */
    int64_t older; /* how many there are beside those */
};

static void take_page(struct output *out, const Draftd__V1__ListJobsResponse *reply)
{
    for (size_t i = 0; i < reply->n_jobs && out->left > 0; i++, out->left--) {
        if (out->list)
            json_array_append_new(out->list, draft_message_to_json(&reply->jobs[i]->base));
        else if (out->table)
            add_row(out->table, reply->jobs[i]);
        else
            printf("%s\n", reply->jobs[i]->id);
    }
}

static int list(struct draft_context *cx, Draftd__V1__ListJobsRequest *request, struct output *out)
{
    Draftd__V1__ListJobsResponse *reply = NULL;
    struct draft_status st = {0};
    int64_t wanted = out->left;
    do {
        Draftd__V1__ListJobsResponse *next = draft_rpc_list_jobs(draft_connect(cx), request, &st);
        draft_free_message(reply);
        if (!(reply = next))
            return draft_report(cx, &st);
        take_page(out, reply);
        request->page_token = reply->next_page_token;
    } while (*reply->next_page_token && out->left > 0);
    out->older = reply->total_size > wanted ? reply->total_size - wanted : 0;
    draft_free_message(reply);
    return DRAFT_EXIT_OK;
}

/* In a terminal the newest are what is asked for; what another program reads is never cut. */
static bool read_limit(const struct draft_context *cx, const struct draft_arguments *arguments, int64_t *limit,
                       struct draft_error *err)
{
    enum { ON_A_TERMINAL = 20 };
    bool table = !cx->json && !draft_arguments_has(arguments, "quiet"), all = draft_arguments_has(arguments, "all");
    if (all && draft_arguments_has(arguments, "limit"))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "--all and --limit exclude each other");
    *limit = draft_arguments_int(arguments, "limit", table && cx->out.tty && !all ? ON_A_TERMINAL : INT64_MAX);
    return *limit >= 1 ||
           draft_fail(err, DRAFT_INVALID_ARGUMENT, "--limit %lld: expected 1 or more", (long long)*limit);
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    Draftd__V1__Job__State states[16];
    Draftd__V1__ListJobsRequest request = DRAFTD__V1__LIST_JOBS_REQUEST__INIT;
    struct draft_error err = {0};
    struct output out = {0};
    bool quiet = draft_arguments_has(arguments, "quiet");
    int rows, width;
    if (!read_limit(cx, arguments, &out.left, &err) || !read_states(arguments, states, &request.n_states, &err))
        return draft_report_error(cx, &err);
    request.states = states;
    request.page_size = out.left < 200 ? (int32_t)out.left : 200;
    if (cx->json)
        out.list = json_array();
    else if (!quiet)
        out.table = draft_table_create(columns, sizeof columns / sizeof columns[0]);
    int code = list(cx, &request, &out);
    if (code == DRAFT_EXIT_OK && out.list)
        draft_json_print(out.list, false, stdout);
    if (code == DRAFT_EXIT_OK && out.table && draft_table_rows(out.table) == 0)
        fprintf(cx->err.out, "no jobs; `draft submit --help` says how to make one, `draft demo` shows everything\n");
    else if (code == DRAFT_EXIT_OK && out.table) {
        draft_terminal_size(&cx->out, &rows, &width);
        draft_table_print(out.table, cx->out.tty ? width : 0, draft_ink(&cx->out, DRAFT_BOLD),
                          draft_ink(&cx->out, DRAFT_PLAIN), stdout);
        fflush(stdout); /* the table first, where both are one terminal */
        if (out.older > 0)
            fprintf(cx->err.out, "%lld older: draft jobs --all (or --state running)\n", (long long)out.older);
    }
    json_decref(out.list);
    draft_table_free(out.table);
    return code;
}

const struct draft_command draft_command_jobs = {
    .name = "jobs",
    .group = DRAFT_GROUP_JOBS,
    .summary = "list jobs with state, progress and reason, newest first",
    .words = "list ls ps queue status",
    .usage = "[options]",
    .about =
        "One line a job. REASON says why a job waits or why it failed. A terminal gets the newest 20, a narrow one "
        "shorter names and fewer columns; a pipe gets everything.",
    .examples = "  draft jobs\n"
                "  draft jobs --state running --state queued\n"
                "  draft jobs --all | less -S\n"
                "  draft jobs -q --state succeeded | xargs draft delete\n"
                "  draft jobs --json | jq -r '.[] | [.id, .progress.reward] | @tsv'\n",
    .options = tables,
    .least = 0,
    .most = 0,
    .json = true,
    .run = run,
};
