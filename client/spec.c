#include "spec.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "fields.h"
#include "json_message.h"
#include "yaml_file.h"

#define OPTION(flag, short_flag, kind, meta, field, text)                                                              \
    {                                                                                                                  \
        .name = flag, .letter = short_flag, .value = DRAFT_VALUE_##kind, .metavar = meta, .path = field, .help = text  \
    }
#define REPEATED(flag, kind, meta, field, text)                                                                        \
    {                                                                                                                  \
        .name = flag, .value = DRAFT_VALUE_##kind, .metavar = meta, .path = field, .help = text, .repeat = true        \
    }
#define CHOICE(flag, meta, field, known, text)                                                                         \
    {                                                                                                                  \
        .name = flag, .value = DRAFT_VALUE_STRING, .metavar = meta, .path = field, .words = known, .help = text        \
    }
#define TITLE(text)                                                                                                    \
    {                                                                                                                  \
        .name = "", .help = text                                                                                       \
    }

const struct draft_option draft_spec_options[] = {
    TITLE("What is trained, on what, towards what"),
    OPTION("model", 'm', PATH, "PATH", "model", "diffusers folder or .safetensors checkpoint of the model to tune"),
    REPEATED("base-lora", LORA, "LORA", "base_loras",
             "[WEIGHT*]FILE: a LoRA (kohya, diffusers or PEFT) summed into the model before it is tuned"),
    OPTION("dataset", 'd', PATH, "FILE", "dataset",
           "prompts: .txt (one a line), .jsonl, .csv with a header, WebDataset .tar; read and kept at submit"),
    REPEATED("reward", REWARD, "REWARD", "rewards",
             "[WEIGHT*]KIND[:DIR][,key=value...]: pickscore:DIR, clip:DIR (any CLIPModel folder), hps:DIR, "
             "imagereward:DIR, aesthetic:DIR, jpeg,mode=compressibility,quality=50; several are summed by weight"),
    OPTION("kl-coeff", 0, DOUBLE, "X", "kl_coeff",
           "weight of the KL to the frozen base: larger keeps more of its diversity (default 1; 0 is vanilla DRaFT)"),
    OPTION("name", 'n', STRING, "TEXT", "display_name", "a name for lists and plots"),
    TITLE("Length"),
    OPTION("steps", 0, INT, "N", "length.steps", "train for N updates ..."),
    OPTION("epochs", 0, DOUBLE, "X", "length.epochs", "... or for X passes over the dataset"),
    OPTION("batch", 'b', INT, "N", "length.global_batch", "pictures an update (default 4)"),
    OPTION("micro-batch", 0, INT, "N", "length.micro_batch",
           "pictures at a time: less memory when smaller, same result (default 1)"),
    TITLE("Sampling"),
    OPTION("sampling-steps", 'T', INT, "T", "sampling.steps", "denoising steps (default 50)"),
    CHOICE("sampler", "NAME", "sampling.sampler", DRAFT_SAMPLER_WORDS,
           "ddim (default), pndm, euler, euler_karras, euler_a, dpmpp_2m or dpmpp_2m_karras"),
    OPTION("truncation-steps", 'K', INT, "K", "sampling.truncation_steps",
           "gradient through the last K steps (default 1)"),
    OPTION("lv", 0, INT, "N", "sampling.lv_copies", "DRaFT-LV: N more noised copies a sample (default off)"),
    OPTION("guidance", 'g', DOUBLE, "X", "sampling.guidance", "classifier-free guidance (default 7.5; <= 1: off)"),
    OPTION("negative-prompt", 0, STRING, "TEXT", "sampling.negative_prompt", "the unconditional prompt"),
    OPTION("size", 's', SIZE, "HxW", "sampling", "pixels, such as 512x512 (default: the model's own)"),
    TITLE("Trained weights and optimizer"),
    CHOICE("train", "WEIGHTS", "train", "lora full",
           "lora (default): an adapter of some MB beside the frozen UNet; full: every weight of the UNet, for four to "
           "five times its size in memory and checkpoints of three times its size"),
    OPTION("rank", 'r', INT, "N", "lora.rank", "LoRA rank (default 32)"),
    OPTION("alpha", 0, DOUBLE, "X", "lora.alpha", "LoRA alpha (default: the rank)"),
    OPTION("continue-from", 0, PATH, "FILE", "lora.continue_from",
           "a LoRA file of this rank to go on from (default: a new one)"),
    OPTION("ema-decay", 0, DOUBLE, "D", "ema_decay",
           "also keep an exponential average of the trained weights, D near 1 such as 0.999: smoother than the last "
           "step's; evaluations are the average's, preview and export take it with --ema (default: none)"),
    OPTION("lr", 0, DOUBLE, "X", "optimizer.learning_rate", "learning rate (default 1e-4; 1e-5 of --train full)"),
    OPTION("warmup", 0, INT, "N", "optimizer.warmup_steps", "steps of linear warm-up (default 10)"),
    OPTION("weight-decay", 0, DOUBLE, "X", "optimizer.weight_decay", "AdamW's decay (default 0)"),
    OPTION("beta1", 0, DOUBLE, "X", "optimizer.beta1", "AdamW's beta1 (default 0.9)"),
    OPTION("beta2", 0, DOUBLE, "X", "optimizer.beta2", "AdamW's beta2 (default 0.999)"),
    OPTION("epsilon", 0, DOUBLE, "X", "optimizer.epsilon", "AdamW's epsilon (default 1e-8)"),
    OPTION("max-grad-norm", 0, DOUBLE, "X", "optimizer.max_grad_norm", "clip the gradient's global norm (default 10)"),
    OPTION("seed", 0, UINT, "N", "seed", "seed of noise, shuffling and initial weights (default 0)"),
    TITLE("Evaluation on fixed prompts and noise"),
    OPTION("eval-every", 0, INT, "N", "evaluation.every", "every N steps (default: start and end only; -1: never)"),
    REPEATED("eval-prompt", STRING, "TEXT", "evaluation.prompts",
             "a prompt to evaluate on (default: the dataset's first 8 different ones)"),
    OPTION("eval-seeds", 0, INT, "N", "evaluation.seeds", "pictures of each prompt for the diversity (default 8)"),
    OPTION("eval-steps", 0, INT, "T", "evaluation.sampling_steps", "denoising steps (default: as in training)"),
    OPTION("lpips", 0, PATH, "DIR", "evaluation.lpips", "LPIPS folder; without it there is no diversity series"),
    TITLE("Running"),
    OPTION("checkpoint-every", 0, INT, "N", "checkpoint_every", "save every N steps (default 50)"),
    OPTION("checkpoint-keep", 0, INT, "N", "checkpoint_keep", "newest checkpoints kept (default 3; 2 of --train full)"),
    OPTION("recompute", 0, NONE, NULL, "recompute", "gradient checkpointing: less memory, more arithmetic"),
    CHOICE(
        "memory", "MODE", "memory", "auto fast low",
        "fast: weights are kept in every form that steps use; low: as few as possible, and recompute, for a model that "
        "would not fit; auto (default): fast where it needs at most 70 % of the machine's memory"),
    CHOICE("precision", "NAME", "precision", "auto fp32 bf16",
           "fp32; bf16: 16-bit products, summed in 32 bits: faster, less exact; auto (default): bf16 on a GPU, fp32 on "
           "the CPU"),
    CHOICE("device", "NAME", "device", "auto cpu cuda cuda:0",
           "auto (default): the first free GPU that can do it, the processor where there is none; cpu; cuda: any GPU; "
           "cuda:0, cuda:1 ...: `draft devices` lists them"),
    OPTION("threads", 0, INT, "N", "threads", "processor threads (default: all)"),
    OPTION("max-retries", 0, INT, "N", "max_retries", "restarts after a crash (default 2; -1: none)"),
    {.name = NULL},
};

Draftd__V1__JobSpec *draft_spec_new(void)
{
    return (Draftd__V1__JobSpec *)draft_message_new(&draftd__v1__job_spec__descriptor);
}

/* Replaces *path (on the heap or the empty string) by its absolute form. A shell leaves the ~ in "clip:~/model" and in
 * job files as it is. */
static bool make_absolute(char **path, const char *folder, const char *field, struct draft_error *err)
{
    char joined[PATH_MAX], *real;
    if (!*path || !**path)
        return true;
    const char *home = !strncmp(*path, "~/", 2) ? getenv("HOME") : NULL;
    int n = home && *home                   ? snprintf(joined, sizeof joined, "%s%s", home, *path + 1)
            : (*path)[0] == '/' || !*folder ? snprintf(joined, sizeof joined, "%s", *path)
                                            : snprintf(joined, sizeof joined, "%s/%s", folder, *path);
    if (n < 0 || (size_t)n >= sizeof joined)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%s: the path is too long", field);
    if (!(real = realpath(joined, NULL)))
        return draft_fail_field(err, errno == ENOENT ? DRAFT_NOT_FOUND : DRAFT_INVALID_ARGUMENT, field, "%s \"%s\": %s",
                                field, joined, strerror(errno));
    free(*path);
    *path = real;
    return true;
}

static bool make_paths_absolute(Draftd__V1__JobSpec *spec, const char *folder, struct draft_error *err)
{
    if (!make_absolute(&spec->model, folder, "spec.model", err) ||
        !make_absolute(&spec->dataset, folder, "spec.dataset", err))
        return false;
    for (size_t i = 0; i < spec->n_rewards; i++) {
        char field[64];
        snprintf(field, sizeof field, "spec.rewards[%zu].path", i);
        if (!make_absolute(&spec->rewards[i]->path, folder, field, err))
            return false;
    }
    for (size_t i = 0; i < spec->n_base_loras; i++) {
        char field[64];
        snprintf(field, sizeof field, "spec.base_loras[%zu].path", i);
        if (!make_absolute(&spec->base_loras[i]->path, folder, field, err))
            return false;
    }
    if (spec->lora && !make_absolute(&spec->lora->continue_from, folder, "spec.lora.continue_from", err))
        return false;
    return !spec->evaluation || make_absolute(&spec->evaluation->lpips, folder, "spec.evaluation.lpips", err);
}

/* Takes `root`. */
static bool spec_from_root(Draftd__V1__JobSpec *spec, json_t *root, const char *shown_name, const char *folder,
                           struct draft_error *err)
{
    if (!json_is_object(root)) {
        json_decref(root);
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: expected an object with the fields of a job", shown_name);
    }
    const json_t *inner = json_object_get(root, "spec");
    bool good = draft_message_from_json(&spec->base, json_is_object(inner) ? inner : root, "spec", err) &&
                make_paths_absolute(spec, folder, err);
    if (!good)
        draft_error_prefix(err, "%s: ", shown_name);
    json_decref(root);
    return good;
}

bool draft_spec_from_text(Draftd__V1__JobSpec *spec, const char *text, size_t length, const char *shown_name,
                          const char *folder, struct draft_error *err)
{
    json_error_t where;
    json_t *root = draft_yaml_is(shown_name) ? draft_yaml_load(text, length, shown_name, err)
                                             : json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    if (!root && draft_yaml_is(shown_name))
        return false;
    if (!root)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: line %d: %s", shown_name, where.line, where.text);
    return spec_from_root(spec, root, shown_name, folder, err);
}

bool draft_spec_from_file(Draftd__V1__JobSpec *spec, const char *path, struct draft_error *err)
{
    enum { LIMIT = 1 << 20 };
    char folder[PATH_MAX];
    bool standard = !strcmp(path, "-");
    FILE *file = standard ? stdin : fopen(path, "rb");
    if (!file)
        return draft_fail_errno(err, "cannot open %s", path);
    char *text = malloc(LIMIT + 1);
    if (!text)
        abort();
    size_t length = fread(text, 1, LIMIT + 1, file);
    bool good = !ferror(file) || draft_fail_errno(err, "cannot read %s", path);
    if (!standard)
        fclose(file);
    if (good && length > LIMIT)
        good = draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: larger than 1 MiB, which no job file is", path);
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    else
        folder[0] = 0;
    good = good && draft_spec_from_text(spec, text, length, standard ? "stdin" : path, folder, err);
    free(text);
    return good;
}

/* --- The command line ----------------------------------------------------------------------------------------------
 */

static bool is_key_value(const char *text)
{
    size_t key = strspn(text, "abcdefghijklmnopqrstuvwxyz_0123456789");
    return key > 0 && text[key] == '=';
}

/* Where ",key=value" begins in a reward's text, or ":key=value" of a kind without a folder. Paths may hold commas. */
static size_t options_at(const char *text)
{
    size_t kind = strcspn(text, ":");
    if (text[kind] && is_key_value(text + kind + 1) && !strchr(text, '/'))
        return kind;
    for (size_t i = 0; text[i]; i++)
        if (text[i] == ',' && is_key_value(text + i + 1))
            return i;
    return strlen(text);
}

static void set_string(char **at, const char *text, size_t length)
{
    if (*at != protobuf_c_empty_string)
        free(*at);
    *at = strndup(text, length);
    if (!*at)
        abort();
}

bool draft_spec_parse_reward(const char *text, Draftd__V1__Reward *reward, struct draft_error *err)
{
    static const char form[] = "expected [WEIGHT*]KIND[:DIR][,key=value...], such as clip:PickScore_v1 or "
                               "0.1*jpeg,mode=compressibility";
    const char *star = strchr(text, '*'), *rest = text;
    size_t before = star ? strspn(text, "+-0123456789.eE") : 0;
    if (star && text + before == star) {
        char digits[64];
        double weight;
        snprintf(digits, sizeof digits, "%.*s", (int)(star - text), text);
        if (!draft_parse_double(digits, &weight))
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards", "--reward \"%s\": %s", text, form);
        reward->weight_opt_case = DRAFTD__V1__REWARD__WEIGHT_OPT_WEIGHT;
        reward->weight = weight;
        rest = star + 1;
    }
    size_t end = options_at(rest), kind = strcspn(rest, ":,");
    if (kind == 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards", "--reward \"%s\": %s", text, form);
    set_string(&reward->kind, rest, kind);
    if (rest[kind] == ':' && end != kind) {
        if (end <= kind + 1)
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards",
                                    "--reward \"%s\": the folder after \"%s:\" is missing", text, reward->kind);
        set_string(&reward->path, rest + kind + 1, end - kind - 1);
    } else if (kind != end) {
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards", "--reward \"%s\": %s", text, form);
    }
    if (rest[end])
        set_string(&reward->options, rest + end + 1, strlen(rest + end + 1));
    return true;
}

static bool rewards_from_arguments(Draftd__V1__JobSpec *spec, const struct draft_arguments *arguments,
                                   struct draft_error *err)
{
    int count = 0, at = 0;
    for (int i = 0; i < arguments->count; i++)
        count += arguments->given[i].option->value == DRAFT_VALUE_REWARD;
    if (count == 0)
        return true;
    for (size_t i = 0; i < spec->n_rewards; i++)
        protobuf_c_message_free_unpacked(&spec->rewards[i]->base, NULL);
    free(spec->rewards);
    spec->rewards = calloc((size_t)count, sizeof *spec->rewards);
    spec->n_rewards = (size_t)count;
    if (!spec->rewards)
        abort();
    for (int i = 0; i < count; i++)
        spec->rewards[i] = (Draftd__V1__Reward *)draft_message_new(&draftd__v1__reward__descriptor);
    for (int i = 0; i < arguments->count; i++)
        if (arguments->given[i].option->value == DRAFT_VALUE_REWARD &&
            !draft_spec_parse_reward(arguments->given[i].text, spec->rewards[at++], err))
            return false;
    return true;
}

/* "0.5*style.safetensors" */
static bool parse_lora(const char *text, Draftd__V1__LoraFile *file, struct draft_error *err)
{
    const char *star = strchr(text, '*'), *rest = text;
    if (star && star > text && text + strspn(text, "+-0123456789.eE") == star) {
        char digits[64];
        double weight;
        snprintf(digits, sizeof digits, "%.*s", (int)(star - text), text);
        if (!draft_parse_double(digits, &weight))
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.base_loras",
                                    "--base-lora \"%s\": expected [WEIGHT*]FILE, such as 0.5*style.safetensors", text);
        file->weight_opt_case = DRAFTD__V1__LORA_FILE__WEIGHT_OPT_WEIGHT;
        file->weight = weight;
        rest = star + 1;
    }
    if (!*rest)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.base_loras", "--base-lora \"%s\": no file is named",
                                text);
    set_string(&file->path, rest, strlen(rest));
    return true;
}

static bool loras_from_arguments(Draftd__V1__JobSpec *spec, const struct draft_arguments *arguments,
                                 struct draft_error *err)
{
    int count = 0, at = 0;
    for (int i = 0; i < arguments->count; i++)
        count += arguments->given[i].option->value == DRAFT_VALUE_LORA;
    if (count == 0)
        return true;
    for (size_t i = 0; i < spec->n_base_loras; i++)
        protobuf_c_message_free_unpacked(&spec->base_loras[i]->base, NULL);
    free(spec->base_loras);
    spec->base_loras = calloc((size_t)count, sizeof *spec->base_loras);
    spec->n_base_loras = (size_t)count;
    if (!spec->base_loras)
        abort();
    for (int i = 0; i < count; i++)
        spec->base_loras[i] = (Draftd__V1__LoraFile *)draft_message_new(&draftd__v1__lora_file__descriptor);
    for (int i = 0; i < arguments->count; i++)
        if (arguments->given[i].option->value == DRAFT_VALUE_LORA &&
            !parse_lora(arguments->given[i].text, spec->base_loras[at++], err))
            return false;
    return true;
}

bool draft_spec_from_arguments(Draftd__V1__JobSpec *spec, const struct draft_arguments *arguments,
                               struct draft_error *err)
{
    bool steps = draft_arguments_has(arguments, "steps"), epochs = draft_arguments_has(arguments, "epochs");
    if (steps && epochs)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.length",
                                "--steps and --epochs exclude each other: give one");
    if (spec->length && steps)
        spec->length->epochs = 0;
    if (spec->length && epochs)
        spec->length->steps = 0;
    return draft_fields_from_arguments(&spec->base, arguments, err) && rewards_from_arguments(spec, arguments, err) &&
           loras_from_arguments(spec, arguments, err) && make_paths_absolute(spec, "", err);
}

const char *draft_spec_flag_of(const char *field)
{
    static char flag[64];
    if (strncmp(field, "spec.", 5) != 0)
        return NULL;
    for (const struct draft_option *o = draft_spec_options; o->name; o++) {
        size_t length = o->path ? strlen(o->path) : 0;
        if (length && !strncmp(field + 5, o->path, length) &&
            (!field[5 + length] || (field[5 + length] == '[') || o->value == DRAFT_VALUE_SIZE)) {
            if (o->value == DRAFT_VALUE_SIZE && !strstr(field, "height") && !strstr(field, "width"))
                continue;
            snprintf(flag, sizeof flag, "--%s", o->name);
            return flag;
        }
    }
    return NULL;
}

void draft_spec_name_flag(const char *field, char *message, size_t size)
{
    const char *flag = draft_spec_flag_of(field);
    size_t used = strlen(message);
    if (flag && !strstr(message, flag))
        snprintf(message + used, size - used, " (%s)", flag);
}
