#include <string.h>

#include "command.h"
#include "json_message.h"
#include "table.h"
#include "text.h"

typedef Draftd__V1__GetServerInfoResponse__Device device;

static const struct draft_option options[] = {
    {.name = "retry",
     .value = DRAFT_VALUE_STRING,
     .metavar = "DEVICE",
     .help = "look at a GPU again (cuda:0), or at all (all), before they are listed: one that was drained and works "
             "again takes jobs again"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

static const struct draft_column columns[] = {
    {.title = "DEVICE"},
    {.title = "STATE"},
    {.title = "JOB"},
    {.title = "MEMORY", .right = true},
    {.title = "FREE", .right = true},
    {.title = "DRIVER"},
    {.title = "CAPABILITY"},
    {.title = "WHAT IT IS", .cut = true},
};

static const char *state_name(int state)
{
    static const char *const names[] = {"-", "free", "busy", "probing", "drained"};
    return state >= 0 && state < (int)(sizeof names / sizeof *names) ? names[state] : "-";
}

static void add_row(struct draft_table *table, const device *d)
{
    char text[32];
    draft_table_row(table);
    draft_table_cell(table, "%s", d->name);
    draft_table_cell(table, "%s", state_name((int)d->state));
    draft_table_cell(table, "%s", *d->job_id ? d->job_id : "-");
    draft_table_cell(table, "%s", draft_format_bytes(d->memory_bytes, text, sizeof text));
    draft_table_cell(table, "%s", d->free_bytes ? draft_format_bytes(d->free_bytes, text, sizeof text) : "-");
    draft_table_cell(table, "%s", *d->driver ? d->driver : "-");
    draft_table_cell(table, "%s", *d->capability ? d->capability : "-");
    draft_table_cell(table, "%s", d->description);
}

static void print_table(const struct draft_context *cx, device *const *devices, size_t count, const char *no_gpu)
{
    int rows, width;
    struct draft_table *table = draft_table_create(columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < count; i++)
        add_row(table, devices[i]);
    draft_terminal_size(&cx->out, &rows, &width);
    draft_table_print(table, cx->out.tty ? width : 0, draft_ink(&cx->out, DRAFT_BOLD), draft_ink(&cx->out, DRAFT_PLAIN),
                      stdout);
    draft_table_free(table);
    for (size_t i = 0; i < count; i++)
        if (devices[i]->state == DRAFTD__V1__GET_SERVER_INFO_RESPONSE__DEVICE__STATE__STATE_DRAINED)
            printf("%s takes no jobs: %s\n", devices[i]->name, devices[i]->reason);
    if (*no_gpu)
        printf("no GPU: %s\n", no_gpu);
}

static void print(const struct draft_context *cx, device *const *devices, size_t count, const char *no_gpu)
{
    if (!cx->json) {
        print_table(cx, devices, count, no_gpu);
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, draft_message_to_json(&devices[i]->base));
    json_t *object = json_pack("{s:o, s:s}", "devices", list, "no_gpu", no_gpu);
    draft_json_print(object, false, stdout);
    json_decref(object);
}

static int retry(struct draft_context *cx, const char *name)
{
    Draftd__V1__ProbeDevicesRequest request = DRAFTD__V1__PROBE_DEVICES_REQUEST__INIT;
    struct draft_status st = {0};
    request.device = (char *)(strcmp(name, "all") == 0 ? "" : name); /* packing reads it only */
    Draftd__V1__ProbeDevicesResponse *reply = draft_rpc_probe_devices(draft_connect(cx), &request, &st);
    if (!reply)
        return draft_report(cx, &st);
    print(cx, reply->devices, reply->n_devices, reply->no_gpu);
    draft_free_message(reply);
    return DRAFT_EXIT_OK;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    const char *name = draft_arguments_string(arguments, "retry", NULL);
    if (name)
        return retry(cx, name);
    Draftd__V1__GetServerInfoRequest request = DRAFTD__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct draft_status st = {0};
    Draftd__V1__GetServerInfoResponse *info = draft_rpc_get_server_info(draft_connect(cx), &request, &st);
    if (!info)
        return draft_report(cx, &st);
    print(cx, info->devices, info->n_devices, info->no_gpu);
    draft_free_message(info);
    return DRAFT_EXIT_OK;
}

const struct draft_command draft_command_devices = {
    .name = "devices",
    .group = DRAFT_GROUP_OTHER,
    .summary = "the processor and the GPUs: memory, driver, what runs on them",
    .words = "gpu gpus device",
    .usage = "[--retry DEVICE]",
    .about =
        "One line a device; each runs one job at a time. A GPU is tried by a short-lived process when the daemon "
        "starts "
        "and after a worker of it was lost; one that fails is drained: it takes no jobs, and is tried again every "
        "minute. FREE is its free memory when it was last tried. Without a GPU the last line says why, and what to do.",
    .examples = "  draft devices\n"
                "  draft devices --retry cuda:0        after the GPU was reset\n"
                "  draft devices --json | jq -r '.devices[] | [.name, .state, .job_id] | @tsv'\n",
    .options = tables,
    .least = 0,
    .most = 0,
    .json = true,
    .run = run,
};
