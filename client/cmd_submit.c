#include <string.h>

#include "command.h"
#include "jobs.h"
#include "json_message.h"
#include "live.h"
#include "request_id.h"
#include "spec.h"
#include "text.h"

static const struct draft_option own_options[] = {
    {.name = "config",
     .letter = 'c',
     .value = DRAFT_VALUE_PATH,
     .metavar = "FILE",
     .help = "a job as JSON or, by its name, YAML, with the field names of JobSpec; flags win over it (\"-\": JSON on "
             "stdin)"},
    {.name = "validate-only", .help = "check everything, as the daemon would, and queue nothing"},
    {.name = "watch", .letter = 'w', .help = "follow the job until it ends; the exit code is its result"},
    {.name = "request-id",
     .value = DRAFT_VALUE_STRING,
     .metavar = "UUID",
     .help = "submit once however often it is repeated with this id (default: a fresh one)"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {own_options, draft_spec_options, NULL};

static void print_validated(const struct draft_context *cx, const draft_job *job)
{
    char memory[32];
    FILE *out = cx->err.out;
    fprintf(out, "valid: %d prompts, %lld steps, %dx%d pixels, %llu trained parameters", job->prompt_count,
            job->progress ? (long long)job->progress->total_steps : 0LL, job->picture_height, job->picture_width,
            (unsigned long long)job->trained_parameters);
    if (job->memory_bytes)
        fprintf(out, ", about %s of memory", draft_format_bytes(job->memory_bytes, memory, sizeof memory));
    if (job->gpu_memory_bytes)
        fprintf(out, ", about %s of a GPU's", draft_format_bytes(job->gpu_memory_bytes, memory, sizeof memory));
    fputc('\n', out);
}

static int submit(struct draft_context *cx, const struct draft_arguments *arguments, Draftd__V1__JobSpec *spec)
{
    char id[DRAFT_REQUEST_ID_BYTES];
    struct draft_status st = {0};
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    draft_request_id(id);
    request.spec = spec;
    request.request_id = (char *)(uintptr_t)draft_arguments_string(arguments, "request-id", id);
    request.validate_only = draft_arguments_has(arguments, "validate-only");
    Draftd__V1__CreateJobResponse *reply = draft_create_job(draft_connect(cx), &request, &cx->err, &st);
    if (!reply) {
        draft_spec_name_flag(st.field, st.message, sizeof st.message);
        return draft_report(cx, &st);
    }
    const draft_job *job = reply->job;
    for (size_t i = 0; i < job->n_warnings; i++)
        fprintf(cx->err.out, "%swarning:%s %s\n", draft_ink(&cx->err, DRAFT_YELLOW), draft_ink(&cx->err, DRAFT_PLAIN),
                job->warnings[i]);
    if (cx->json)
        draft_message_print(&job->base, false, stdout);
    else if (request.validate_only)
        print_validated(cx, job);
    else
        printf("%s\n", job->id);
    fflush(stdout);
    int code = DRAFT_EXIT_OK;
    if (!request.validate_only && draft_arguments_has(arguments, "watch"))
        code = draft_watch_job(&cx->err, &cx->err, draft_connect(cx), job->id);
    draft_free_message(reply);
    return code;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = draft_spec_new();
    const char *config = draft_arguments_string(arguments, "config", NULL);
    int code;
    if ((config && !draft_spec_from_file(spec, config, &err)) || !draft_spec_from_arguments(spec, arguments, &err)) {
        draft_spec_name_flag(err.field, err.message, sizeof err.message);
        code = draft_report_error(cx, &err);
    } else {
        code = submit(cx, arguments, spec);
    }
    draft_free_message(spec);
    return code;
}

const struct draft_command draft_command_submit = {
    .name = "submit",
    .group = DRAFT_GROUP_JOBS,
    .summary = "queue a fine-tuning job; prints its id",
    .words = "train run create add new tune finetune",
    .usage = "--model DIR --dataset FILE --reward KIND:DIR (--steps N | --epochs X) [options]",
    .about =
        "Checks everything the job names (model, reward, dataset, ranges), keeps it and queues it. The job is "
        "complete as submitted: the prompts are kept with it and later edits change nothing. With a model of full size "
        "the check takes some seconds: every file is read, and a step is rehearsed to know the memory. stdout gets the "
        "job's id alone. A "
        "lost connection is retried without making a second job.\n\n"
        "A job file has the same fields as draftd.v1.JobSpec, for example\n"
        "  {\"model\": \"sd15\", \"dataset\": \"prompts.txt\", \"rewards\": [{\"kind\": \"clip\", \"path\": "
        "\"PickScore_v1\"}],\n"
        "   \"kl_coeff\": 0.25, \"length\": {\"steps\": 200, \"global_batch\": 8}, \"lora\": {\"rank\": 16}}\n"
        "Relative paths in it are relative to the file; 64-bit numbers may be strings of digits.",
    .examples =
        "  draft submit --model sd15 --dataset prompts.txt --reward clip:PickScore_v1 --kl-coeff 0.25 --steps 500\n"
        "  draft submit --model sd15 -d prompts.csv --reward clip:PickScore_v1 --reward "
        "-0.05*jpeg,mode=incompressibility --epochs 3\n"
        "  draft submit --config job.json --kl-coeff 0 --name vanilla --watch\n"
        "  id=$(draft submit --config job.json) && draft watch $id\n"
        "  draft show job-3 --json > job.json     a job that was run, as a file to run again\n",
    .options = tables,
    .least = 0,
    .most = 0,
    .json = true,
    .run = run,
};
