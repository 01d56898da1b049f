#include "command.h"
#include "export.h"
#include "jobs.h"
#include "json_message.h"
#include "table.h"
#include "text.h"

static const struct draft_option options[] = {
    {.name = "save", .help = "save one now, at the running job's next step boundary, and wait until it is on disk"},
    {.name = "fetch", .help = "copy one here, as it is, and compare it with its checksum"},
    {.name = "output",
     .letter = 'o',
     .value = DRAFT_VALUE_STRING,
     .metavar = "FILE",
     .help = "with --fetch: file or folder to write (default: JOB-step-N.safetensors, here)"},
    {.name = "step",
     .value = DRAFT_VALUE_INT,
     .metavar = "N",
     .help = "with --fetch: the checkpoint of step N (default: the newest)"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

static const struct draft_column columns[] = {
    {.title = "STEP", .right = true},    {.title = "SIZE", .right = true},   {.title = "SAVED"},
    {.title = "ATTEMPT", .right = true}, {.title = "CHECKSUM", .cut = true},
};

static int save(struct draft_context *cx, const char *id)
{
    Draftd__V1__CreateCheckpointRequest request = DRAFTD__V1__CREATE_CHECKPOINT_REQUEST__INIT;
    struct draft_status st = {0};
    request.job_id = (char *)(uintptr_t)id;
    Draftd__V1__CreateCheckpointResponse *reply = draft_rpc_create_checkpoint(draft_connect(cx), &request, &st);
    if (!reply)
        return draft_report(cx, &st);
    if (cx->json)
        draft_message_print(&reply->base, false, stdout);
    else if (reply->checkpoint)
        fprintf(cx->err.out, "%s: step %lld saved\n", id, (long long)reply->checkpoint->step);
    draft_free_message(reply);
    return DRAFT_EXIT_OK;
}

static int fetch(struct draft_context *cx, const struct draft_arguments *arguments, char *id)
{
    char saved[4096], size[32];
    uint64_t bytes;
    Draftd__V1__ReadCheckpointRequest request = DRAFTD__V1__READ_CHECKPOINT_REQUEST__INIT;
    struct draft_status st = {0};
    request.job_id = id;
    if (draft_arguments_has(arguments, "step")) {
        request.step_opt_case = DRAFTD__V1__READ_CHECKPOINT_REQUEST__STEP_OPT_STEP;
        request.step = draft_arguments_int(arguments, "step", 0);
    }
    if (!draft_checkpoint_file(draft_connect(cx), &request, draft_arguments_string(arguments, "output", NULL), saved,
                               sizeof saved, &bytes, &st))
        return draft_report(cx, &st);
    printf("%s\n", saved);
    fprintf(cx->err.out, "%s written\n", draft_format_bytes(bytes, size, sizeof size));
    return DRAFT_EXIT_OK;
}

/* Which options go together. */
static bool check(const struct draft_context *cx, const struct draft_arguments *arguments, struct draft_status *st)
{
    bool fetching = draft_arguments_has(arguments, "fetch");
    if (fetching && draft_arguments_has(arguments, "save"))
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT,
                                 "--save and --fetch exclude each other; save first");
    if (fetching && cx->json)
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT,
                                 "--json has nothing to say of --fetch, which prints the file's name; leave it out");
    for (const char *const *name = (const char *const[]){"output", "step", NULL}; !fetching && *name; name++)
        if (draft_arguments_has(arguments, *name))
            return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT, "--%s is for --fetch, which is missing", *name);
    return true;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    char id[DRAFT_ID_BYTES], size[32], when[32];
    Draftd__V1__ListCheckpointsRequest request = DRAFTD__V1__LIST_CHECKPOINTS_REQUEST__INIT;
    struct draft_status st = {0};
    draft_job_id(arguments->operands[0], id);
    if (!check(cx, arguments, &st))
        return draft_report(cx, &st);
    if (draft_arguments_has(arguments, "fetch"))
        return fetch(cx, arguments, id);
    if (draft_arguments_has(arguments, "save"))
        return save(cx, id);
    request.job_id = id;
    Draftd__V1__ListCheckpointsResponse *reply = draft_rpc_list_checkpoints(draft_connect(cx), &request, &st);
    if (!reply)
        return draft_report(cx, &st);
    if (cx->json) {
        draft_message_print(&reply->base, false, stdout);
    } else if (reply->n_checkpoints == 0) {
        fprintf(cx->err.out, "%s has no checkpoint yet\n", id);
    } else {
        struct draft_table *table = draft_table_create(columns, 5);
        for (size_t i = 0; i < reply->n_checkpoints; i++) {
            const Draftd__V1__Checkpoint *c = reply->checkpoints[i];
            draft_table_row(table);
            draft_table_cell(table, "%lld", (long long)c->step);
            draft_table_cell(table, "%s", draft_format_bytes(c->bytes, size, sizeof size));
            draft_table_cell(table, "%s", draft_format_time(c->create_time_us, when, sizeof when));
            draft_table_cell(table, "%d", c->attempt);
            draft_table_cell(table, "%s", c->checksum);
        }
        draft_table_print(table, 0, draft_ink(&cx->out, DRAFT_BOLD), draft_ink(&cx->out, DRAFT_PLAIN), stdout);
        draft_table_free(table);
    }
    draft_free_message(reply);
    return DRAFT_EXIT_OK;
}

const struct draft_command draft_command_checkpoints = {
    .name = "checkpoints",
    .group = DRAFT_GROUP_PICTURES,
    .summary = "list a job's checkpoints, save one now, or fetch one",
    .words = "checkpoint ckpt",
    .usage = "JOB [--save | --fetch [-o FILE] [--step N]]",
    .about =
        "Oldest first. Each can be exported (`draft export JOB --step N`) and shown (`draft preview JOB "
        "--checkpoint N`). --fetch copies the file itself, whole or not at all, and prints its name; `draft export` "
        "makes the LoRA that other tools load.",
    .examples = "  draft checkpoints job-3\n"
                "  draft checkpoints job-3 --save\n"
                "  draft checkpoints job-3 --fetch\n"
                "  draft checkpoints job-3 --fetch --step 100 -o kept/\n",
    .options = tables,
    .least = 1,
    .most = 1,
    .json = true,
    .run = run,
};
