/* The program itself, against a real draftd with a worker that only pretends to train. */
#include <jansson.h>

#include "base/checksum.h"
#include "cli_program.h"
#include "tensor/safetensors.h"

static void test_cli__submit_prints_the_id_alone(void **state)
{
    (void)state;
    const char *id = submit("", 3);
    char expected[64];
    snprintf(expected, sizeof expected, "%s\n", id);
    assert_string_equal(out, expected);
    assert_string_equal(errors, "");
    assert_int_equal(strncmp(id, "job-", 4), 0);
}

static void test_cli__the_exit_code_is_the_job_s_result(void **state)
{
    (void)state;
    assert_int_equal(draft("watch %s", submit("", 3)), 0);
    assert_int_equal(draft("watch %s", submit("nonfinite@2x9", 5)), 1);
    assert_non_null(strstr(out, "failed"));
    const char *id = submit("ms=100", 100);
    assert_int_equal(draft("cancel %s", id), 0);
    assert_int_equal(draft("watch %s", id), 9);
    assert_int_equal(draft("submit -m model -d prompts.txt --reward clip:model --steps 3 --watch"), 0);
    assert_int_equal(strncmp(out, "job-", 4), 0); /* the id alone on stdout, the rest on stderr */
    assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
    assert_non_null(strstr(errors, "succeeded"));
}

static void test_cli__documented_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(draft("%s", ""), 2);
    assert_int_equal(draft("frobnicate"), 2);
    assert_int_equal(draft("show"), 2);
    assert_int_equal(draft("jobs extra"), 2);
    assert_non_null(strstr(errors, "unexpected argument \"extra\": draft jobs [options]"));
    assert_int_equal(draft("submit --steps x"), 2);
    assert_int_equal(draft("submit -m model -d prompts.txt --reward clip:model"), 2); /* no length */
    assert_int_equal(draft("submit -m nowhere -d prompts.txt --reward clip:model --steps 1"), 3);
    assert_int_equal(draft("show job-999"), 3);
    assert_int_equal(draft("preview job-999"), 3);
    const char *id = submit("", 2);
    assert_int_equal(draft("watch %s", id), 0);
    assert_int_equal(draft("cancel %s", id), 5);
    assert_int_equal(draft("jobs --socket /nowhere/d.sock"), 7);
    assert_non_null(strstr(errors, "draftd &"));
    assert_int_equal(WEXITSTATUS(system(DRAFT " help >/dev/full 2>err")), 1);
}

static void test_cli__a_refused_field_names_its_flag(void **state)
{
    (void)state;
    assert_int_equal(draft("submit -m model -d prompts.txt --reward clip:model --steps 3 --lr -1"), 2);
    assert_non_null(strstr(errors, "(--lr)"));
    assert_string_equal(out, "");
}

static void test_cli__one_request_id_makes_one_job(void **state)
{
    (void)state;
    static const char words[] = "submit -m model -d prompts.txt --reward clip:model --steps 2 --request-id %s";
    static const char id[] = "0b53a2a5-5b7e-4c2f-9d59-000000000001";
    assert_int_equal(draft(words, id), 0);
    char *first = kept();
    assert_int_equal(draft(words, id), 0);
    assert_string_equal(out, first);
    free(first);
}

static void test_cli__validate_only_queues_nothing(void **state)
{
    (void)state;
    assert_int_equal(draft("jobs -q"), 0);
    char *before = kept();
    assert_int_equal(draft("submit -m model -d prompts.txt --reward clip:model --steps 2 --validate-only"), 0);
    assert_non_null(strstr(errors, "valid"));
    assert_string_equal(out, "");
    assert_int_equal(draft("jobs -q"), 0);
    assert_string_equal(out, before);
    free(before);
}

static void test_cli__a_cut_list_of_jobs_says_how_many_are_older(void **state)
{
    (void)state;
    char id[32];
    int all = 0;
    submit("", 1);
    snprintf(id, sizeof id, "%s", submit("", 1));
    assert_int_equal(draft("watch %s", id), 0); /* both are over: their number stays as it is */
    assert_int_equal(draft("jobs -q --all"), 0);
    for (const char *c = out; *c; c++)
        all += *c == '\n';
    assert_int_equal(draft("jobs -n 1"), 0);
    assert_non_null(strstr(out, id));
    char expected[64];
    snprintf(expected, sizeof expected, "%d older: draft jobs --all (or --state running)\n", all - 1);
    assert_string_equal(errors, expected);
    assert_int_equal(draft("jobs"), 0); /* no terminal: everything */
    assert_string_equal(errors, "");
    assert_int_equal(draft("jobs --all -n 1"), 2);
}

static void test_cli__a_job_shown_as_json_can_be_submitted_again(void **state)
{
    (void)state;
    assert_int_equal(
        draft("submit -m model -d prompts.txt --reward 0.5*clip:model --reward jpeg,quality=70 --kl-coeff 0 "
              "--epochs 1.5 --seed 18446744073709551615 --name again --eval-prompt käse"),
        0);
    char id[32];
    assert_int_equal(sscanf(out, "%31s", id), 1);
    assert_int_equal(draft("show %s --json", id), 0);
    json_t *first = json_loads(out, 0, NULL);
    assert_non_null(first);
    assert_int_equal(system("cp out job.json"), 0);
    assert_int_equal(draft("submit --config job.json --json"), 0);
    json_t *second = json_loads(out, 0, NULL);
    assert_non_null(second);
    assert_true(json_equal(json_object_get(first, "spec"), json_object_get(second, "spec")));
    assert_string_not_equal(json_string_value(json_object_get(first, "id")),
                            json_string_value(json_object_get(second, "id")));
    json_decref(first);
    json_decref(second);
}

static void test_cli__plain_output_has_no_escape_sequences(void **state)
{
    char id[32];
    (void)state;
    snprintf(id, sizeof id, "%s", submit("notice@2", 4));
    assert_int_equal(draft("watch %s", id), 0);
    assert_null(strchr(out, '\033'));
    assert_non_null(strstr(out, "step 4/4"));
    static const char *const commands[] = {"jobs", "help submit", "version", "help"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(draft("%s", commands[i]), 0);
        assert_null(strchr(out, '\033'));
        assert_string_equal(errors, "");
    }
    assert_int_equal(draft("show %s", id), 0);
    assert_null(strchr(out, '\033'));
    assert_int_equal(draft("plot %s", id), 0);
    assert_null(strchr(out, '\033'));
}

static void test_cli__metrics_come_as_csv_and_json_with_nan(void **state)
{
    char id[32];
    (void)state;
    snprintf(id, sizeof id, "%s", submit("nan@2 inf@3", 4));
    assert_int_equal(draft("watch %s", id), 0);
    assert_int_equal(draft("metrics %s --names reward,kl --since 1 -f csv", id), 0);
    int rows = 0;
    for (const char *c = out; *c; c++)
        rows += *c == '\n';
    assert_int_equal(rows, 5);
    assert_int_equal(strncmp(out, "step,reward,kl\n1,", 17), 0);
    assert_non_null(strstr(out, "\n2,NaN,"));
    assert_non_null(strstr(out, "\n3,Infinity,-Infinity\n"));
    assert_int_equal(draft("metrics %s --names reward --json", id), 0);
    json_t *json = json_loads(out, 0, NULL);
    assert_non_null(json);
    const json_t *values = json_object_get(json_object_get(json_object_get(json, "series"), "reward"), "values");
    assert_int_equal(json_array_size(values), 4);
    assert_string_equal(json_string_value(json_array_get(values, 1)), "NaN");
    json_decref(json);
}

static void test_cli__a_misspelt_series_is_no_empty_table(void **state)
{
    char id[32];
    (void)state;
    snprintf(id, sizeof id, "%s", submit("", 3));
    assert_int_equal(draft("watch %s", id), 0);
    assert_int_equal(draft("metrics %s --names rewrad", id), 3);
    assert_string_equal(out, "");
    assert_non_null(strstr(errors, "did you mean \"reward\"?"));
    assert_int_equal(draft("metrics %s --names reward --since 1000", id), 0);
    assert_int_equal(draft("metrics %s reward,kl loss -f csv", id), 0);
    assert_int_equal(strncmp(out, "step,reward,kl,loss\n", 20), 0);
    assert_int_equal(draft("metrics %s reward rewrad", id), 3);
    assert_int_equal(draft("plot %s --y reward --x rewrad -o wrong.png", id), 3);
    assert_int_not_equal(access("wrong.png", F_OK), 0);
}

static void test_cli__watch_as_json_is_one_message_a_line(void **state)
{
    char id[32];
    (void)state;
    snprintf(id, sizeof id, "%s", submit("ms=20", 10));
    assert_int_equal(draft("watch %s --json", id), 0);
    json_int_t last = -1;
    for (char *save, *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *json = json_loads(line, 0, NULL);
        assert_non_null(json);
        json_int_t revision = json_integer_value(json_object_get(json, "revision"));
        assert_true(revision >= last);
        last = revision;
        json_decref(json);
    }
    assert_true(last > 0);
}

static void test_cli__pictures_and_the_lora_are_saved(void **state)
{
    char id[32];
    struct stat info;
    (void)state;
    snprintf(id, sizeof id, "%s", submit("", 3));
    assert_int_equal(draft("watch %s", id), 0);
    assert_int_equal(draft("preview %s -p owl -p lion -n 2 --seed 0 -o pictures", id), 0);
    int names = 0;
    for (char *save, *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char expected[64];
        snprintf(expected, sizeof expected, "pictures/%s-3-%d-%d.png", id, 1 + names / 2, names % 2);
        assert_string_equal(line, expected);
        assert_int_equal(stat(line, &info), 0);
        names++;
    }
    assert_int_equal(names, 4);
    /* Nothing is drawn for a place that cannot be written. */
    assert_int_equal(draft("preview %s --grid pictures", id), 2);
    assert_non_null(strstr(errors, "pictures is a folder; name a file in it"));
    assert_int_equal(draft("grid %s -o nowhere/grid.png", id), 3);
    assert_int_equal(draft("preview %s -o out", id), 1);
    assert_int_equal(draft("export %s -o lora.safetensors", id), 0);
    assert_string_equal(out, "lora.safetensors\n");
    assert_int_equal(draft("export %s -f diffusers -o made/", id), 0);
    assert_string_equal(out, "made/pytorch_lora_weights.safetensors\n");
    assert_int_equal(stat("lora.safetensors", &info), 0);
    assert_int_equal(draft("export %s --format merged", id), 2);
    assert_non_null(strstr(errors, "--output is missing"));
    assert_int_equal(draft("export %s --format merged -o nowhere/merged", id), 3);
    assert_int_equal(draft("export %s --format merged -o merged/", id), 0);
    char made[256];
    snprintf(made, sizeof made, "%s/merged\n", folder);
    assert_string_equal(out, made);
    assert_int_equal(stat("merged", &info), 0);
    assert_int_equal(draft("export %s --format merged -o merged", id), 2);
    assert_non_null(strstr(errors, "is there already"));
    assert_int_equal(draft("checkpoints %s --json", id), 0);
    assert_non_null(strstr(out, "\"checksum\""));
}

static void test_cli__a_checkpoint_is_fetched_with_its_checksum(void **state)
{
    char id[32], name[128], hex[DRAFT_CHECKSUM_SIZE];
    struct stat info;
    (void)state;
    snprintf(id, sizeof id, "%s", submit("", 3));
    assert_int_equal(draft("watch %s", id), 0);
    assert_int_equal(draft("checkpoints %s --fetch", id), 0);
    snprintf(name, sizeof name, "%s-step-3.safetensors", id);
    assert_memory_equal(out, name, strlen(name));
    assert_string_equal(out + strlen(name), "\n");
    assert_true(draft_checksum_file(name, hex, NULL, NULL));
    assert_int_equal(draft("checkpoints %s --json", id), 0);
    assert_non_null(strstr(out, hex));
    assert_int_equal(draft("checkpoints %s --fetch --step 3 -o kept.safetensors", id), 0);
    assert_string_equal(out, "kept.safetensors\n");
    assert_int_equal(draft("checkpoints %s --fetch --step 2 -o none.safetensors", id), 3);
    assert_non_null(strstr(errors, "no checkpoint of step 2"));
    assert_int_not_equal(stat("none.safetensors", &info), 0);
    assert_int_equal(draft("checkpoints %s --step 3", id), 2);
    assert_non_null(strstr(errors, "--fetch"));
    assert_int_equal(draft("checkpoints %s --save --fetch", id), 2);
    assert_int_equal(draft("checkpoints %s --fetch --json", id), 2);
}

static void test_cli__several_jobs_are_deleted_and_the_first_failure_is_told(void **state)
{
    char a[32], b[32];
    (void)state;
    snprintf(a, sizeof a, "%s", submit("", 1));
    snprintf(b, sizeof b, "%s", submit("", 1));
    assert_int_equal(draft("watch %s", b), 0);
    assert_int_equal(draft("delete %s job-999 %s", a, b), 3);
    assert_int_equal(draft("show %s", a), 3);
    assert_int_equal(draft("show %s", b), 3);
}

/* A daemon on a loaded machine: it takes the connection now and says its first word later. */
static void test_cli__a_daemon_that_is_slow_to_answer_is_waited_for(void **state)
{
    (void)state;
    char line[96], id[32];
    snprintf(id, sizeof id, "%s", submit("", 1));
    assert_int_equal(draft("watch %s", id), 0);
    assert_int_equal(kill(daemon_pid, SIGSTOP), 0);
    snprintf(line, sizeof line, "(sleep 0.6; kill -CONT %d) &", (int)daemon_pid);
    assert_int_equal(system(line), 0);
    assert_int_equal(draft("watch %s", id), 0);
}

/* --- Devices --- */

static void test_cli__devices_are_listed_and_looked_at_again(void **state)
{
    (void)state;
    char cpu[32], gpu[32];
    assert_int_equal(draft("devices --retry cuda:0"), 0);
    assert_non_null(strstr(out, "DEVICE"));
    assert_non_null(strstr(out, "cuda:0"));
    assert_non_null(strstr(out, "Fake GPU"));
    assert_non_null(strstr(out, "79.0 GiB"));
    assert_int_equal(draft("devices --retry cuda:3"), 3);
    assert_non_null(strstr(errors, "there is no device \"cuda:3\""));

    assert_int_equal(draft("submit -m model -d prompts.txt --reward clip:model --steps 500 --name ms=20 --device cpu"),
                     0);
    assert_int_equal(sscanf(out, "%31s", cpu), 1);
    snprintf(gpu, sizeof gpu, "%s", submit("ms=20", 500));
    for (int i = 0; i < 200; i++, usleep(20000)) {
        assert_int_equal(draft("jobs -q --state running"), 0);
        if (strstr(out, cpu) && strstr(out, gpu))
            break;
    }
    assert_int_equal(draft("devices"), 0);
    assert_non_null(strstr(out, cpu));
    assert_non_null(strstr(out, gpu));
    assert_int_equal(draft("devices --json"), 0);
    json_t *json = json_loads(out, 0, NULL);
    const json_t *device = json_array_get(json_object_get(json, "devices"), 1);
    assert_string_equal(json_string_value(json_object_get(device, "state")), "STATE_BUSY");
    assert_string_equal(json_string_value(json_object_get(device, "job_id")), gpu);
    json_decref(json);
    assert_int_equal(draft("show %s", gpu), 0);
    assert_non_null(strstr(out, "cuda:0"));
    assert_int_equal(draft("cancel %s", cpu), 0);
    assert_int_equal(system("(sleep 1; " DRAFT " cancel $(" DRAFT " jobs -q --state running)) >/dev/null 2>&1 &"), 0);
    assert_int_equal(draft("watch"), 9); /* the newest that runs */
    assert_non_null(strstr(out, gpu));
}

/* --- bench --- */

static void assert_no_bench_job(void)
{
    assert_int_equal(draft("jobs --json"), 0);
    assert_null(strstr(out, "bench job"));
}

static void test_cli__bench_measures_a_job_and_deletes_it(void **state)
{
    (void)state;
    assert_int_equal(
        draft("bench model --server --reward clip:model --device cpu --name 'bench job' --steps 4 --micro-batch 0 "
              "--json fake.json"),
        0);
    assert_non_null(strstr(out, "device     cpu: "));
    assert_non_null(strstr(out, "; precision fp32\n"));
    assert_non_null(strstr(out, "mean of 4 steps"));
    assert_non_null(strstr(out, "batch 1 (1 at a time), T = 10, K = 1"));
    assert_null(strchr(out, '\033'));
    json_t *json = json_load_file("fake.json", 0, NULL);
    const json_t *seconds = json_object_get(json, "seconds");
    assert_true(json_real_value(json_object_get(seconds, "step")) > 0);
    assert_true(json_is_null(json_object_get(seconds, "backward"))); /* the fake worker has no phases */
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(json_object_get(json, "spec"), "length"), "steps")), 5);
    json_decref(json);
    assert_no_bench_job();
}

static void test_cli__a_bench_that_fails_or_is_interrupted_leaves_no_job(void **state)
{
    (void)state;
    assert_int_equal(draft("bench model --server --name 'bench job nonfinite@2x9'"), 1);
    assert_non_null(strstr(errors, "3 steps in a row"));
    assert_no_bench_job();
    int how = system("timeout --preserve-status -s INT 2 " DRAFT
                     " bench model --server --name 'bench job ms=100' --steps 900 >out 2>err");
    assert_int_equal(WEXITSTATUS(how), 130);
    assert_no_bench_job();
    assert_int_equal(draft("bench model --epochs 2 --server"), 2);
    assert_int_equal(draft("bench model --model model --server"), 2);
    assert_int_equal(draft("bench nowhere --server"), 3);
    assert_non_null(strstr(errors, "(--model)"));
}

static void test_cli__bench_runs_the_demo_on_a_daemon_of_its_own(void **state)
{
    (void)state;
    if (access(BUILD "/draft-engine", X_OK) != 0)
        skip();
    assert_int_equal(draft("bench --steps 1 -T 3 --json bench.json"), 0);
    json_t *json = json_load_file("bench.json", 0, NULL);
    const json_t *seconds = json_object_get(json, "seconds");
    static const char *const names[] = {"step", "sampling", "forward", "backward", "optimizer", "first_step"};
    for (int i = 0; i < 6; i++)
        assert_true(json_real_value(json_object_get(seconds, names[i])) > 0);
    /* T - K = 2 denoising steps of one picture */
    double expected = 2 / json_real_value(json_object_get(seconds, "sampling"));
    double told = json_real_value(json_object_get(json, "it_per_second"));
    assert_true(told > 0.999 * expected && told < 1.001 * expected);
    double peak = json_real_value(json_object_get(json, "memory_peak_bytes"));
    assert_true(peak > 50e6 && peak < 4e9);
    json_decref(json);
}

static void test_cli__merge_sums_files_and_says_what_is_wrong(void **state)
{
    (void)state;
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    const struct draft_safetensors_item items[] = {
        {"lora_unet_a.lora_down.weight", DRAFT_F32, 2, {1, 3}, values},
        {"lora_unet_a.lora_up.weight", DRAFT_F32, 2, {2, 1}, values},
    };
    assert_true(draft_safetensors_write("lora.safetensors", items, 2, NULL, NULL));
    assert_int_equal(draft("merge lora.safetensors lora.safetensors --weights 1,-0.5 --out sum.safetensors"), 0);
    assert_string_equal(out, "sum.safetensors\n");
    struct draft_safetensors *file = draft_safetensors_open("sum.safetensors", NULL);
    assert_non_null(file);
    assert_int_equal(draft_safetensors_find(file, "lora_unet_a.lora_down.weight")->dim[0], 2);
    draft_safetensors_close(file);
    assert_int_equal(draft("merge lora.safetensors"), 2);
    assert_non_null(strstr(errors, "--out is missing"));
    assert_int_equal(draft("merge lora.safetensors lora.safetensors -w 1 -o x.safetensors"), 2);
    assert_non_null(strstr(errors, "expected 2 numbers"));
    assert_int_equal(draft("merge lora.safetensors -w 1,2 -o x.safetensors"), 2);
    assert_int_equal(draft("merge missing.safetensors -o x.safetensors"), 3);
    assert_int_equal(draft("merge job-999 -o x.safetensors"), 3);
    assert_int_not_equal(access("x.safetensors", F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli__merge_sums_files_and_says_what_is_wrong),
        cmocka_unit_test(test_cli__submit_prints_the_id_alone),
        cmocka_unit_test(test_cli__the_exit_code_is_the_job_s_result),
        cmocka_unit_test(test_cli__documented_exit_codes),
        cmocka_unit_test(test_cli__a_refused_field_names_its_flag),
        cmocka_unit_test(test_cli__one_request_id_makes_one_job),
        cmocka_unit_test(test_cli__validate_only_queues_nothing),
        cmocka_unit_test(test_cli__a_cut_list_of_jobs_says_how_many_are_older),
        cmocka_unit_test(test_cli__a_job_shown_as_json_can_be_submitted_again),
        cmocka_unit_test(test_cli__plain_output_has_no_escape_sequences),
        cmocka_unit_test(test_cli__metrics_come_as_csv_and_json_with_nan),
        cmocka_unit_test(test_cli__a_misspelt_series_is_no_empty_table),
        cmocka_unit_test(test_cli__watch_as_json_is_one_message_a_line),
        cmocka_unit_test(test_cli__pictures_and_the_lora_are_saved),
        cmocka_unit_test(test_cli__a_checkpoint_is_fetched_with_its_checksum),
        cmocka_unit_test(test_cli__several_jobs_are_deleted_and_the_first_failure_is_told),
        cmocka_unit_test(test_cli__a_daemon_that_is_slow_to_answer_is_waited_for),
        cmocka_unit_test(test_cli__devices_are_listed_and_looked_at_again),
        cmocka_unit_test(test_cli__bench_measures_a_job_and_deletes_it),
        cmocka_unit_test(test_cli__a_bench_that_fails_or_is_interrupted_leaves_no_job),
        cmocka_unit_test(test_cli__bench_runs_the_demo_on_a_daemon_of_its_own),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
