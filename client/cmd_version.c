#include "command.h"
#include "json_message.h"
#include "text.h"

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    Draftd__V1__GetServerInfoRequest request = DRAFTD__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct draft_status st = {0};
    char text[48], memory[32];
    (void)arguments;
    Draftd__V1__GetServerInfoResponse *info = draft_rpc_get_server_info(draft_connect(cx), &request, &st);
    if (cx->json) {
        json_t *object = json_pack("{s:s}", "client", DRAFT_VERSION);
        json_object_set_new(object, "daemon", info ? draft_message_to_json(&info->base) : json_null());
        draft_json_print(object, false, stdout);
        json_decref(object);
        draft_free_message(info);
        return DRAFT_EXIT_OK;
    }
    printf("draft   %s\n", DRAFT_VERSION);
    if (!info) {
        /* Not an error of `version`: the client's own is known. */
        printf("draftd  not reached: %s\n", st.message);
        return DRAFT_EXIT_OK;
    }
    printf("draftd  %s, process %d, up since %s%s\n", info->version, info->pid,
           draft_format_time(info->start_time_us, text, sizeof text), info->draining ? ", draining" : "");
    printf("        socket %s\n        state %s\n", info->socket, info->state_dir);
    printf("        %d running, %d of at most %d queued\n", info->running_jobs, info->queued_jobs, info->max_queue);
    for (size_t i = 0; i < info->n_devices; i++)
        printf("device  %s: %s, %s%s%s\n", info->devices[i]->name, info->devices[i]->description,
               draft_format_bytes(info->devices[i]->memory_bytes, memory, sizeof memory),
               *info->devices[i]->job_id ? ", runs " : "", info->devices[i]->job_id);
    for (size_t i = 0; i < info->n_rewards; i++)
        printf("reward  %s: %s\n", info->rewards[i]->name, info->rewards[i]->help);
    draft_free_message(info);
    return DRAFT_EXIT_OK;
}

const struct draft_command draft_command_version = {
    .name = "version",
    .group = DRAFT_GROUP_OTHER,
    .summary = "versions of client and daemon, devices and reward kinds",
    .words = "about",
    .usage = "",
    .about = "Also says whether the daemon is running, where its socket and state lie, and what it offers.",
    .examples = "  draft version\n"
                "  draft version --json | jq .daemon.devices\n",
    .least = 0,
    .most = 0,
    .json = true,
    .run = run,
};
