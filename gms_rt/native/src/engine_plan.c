/* Which way to run an engine fits this machine: the choice of gms_rt/engine/select.py, with the same rules in the same
 * order. What a program has (its TensorRT) it says itself; GPUs and the CPU's arithmetic are asked when they count. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_driver.h"
#include "engine.h"

#define MAX_GPUS 64u

static const char *const target_names[] = {"cpu", "tensorrt", "tensorrt-rtx"};

/* What the options ask for, and what the machine is. */
typedef struct machine {
    bool any, cpu; /* the kind of device: any, or the CPU, else a GPU */
    int64_t gpu;   /* -1: any */
    const gmsrt_select_options *options;
    uint32_t sms[MAX_GPUS], sm_count;
    char names[MAX_GPUS][sizeof((gmsrt_device *)NULL)->name]; /* "" where the caller named the sms */
    char note[300];                                           /* why there is no GPU */
} machine;

gmsrt_target gmsrt_target_of(const char *name)
{
    for (gmsrt_target target = 0; target < 3; target++)
        if (strcmp(name, target_names[target]) == 0) return target;
    return -1;
}

static gmsrt_select_options default_options(void)
{
    gmsrt_select_options options;

    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    return options;
}

gmsrt_status gmsrt_select_options_init(gmsrt_select_options *options, size_t size)
{
    const gmsrt_select_options defaults = default_options();

    return gmsrt_struct_init(options, size, &defaults, sizeof defaults, "gmsrt_select_options");
}

/* "cpu", "cuda", "cuda:N", or nothing for any. */
static bool parse_device(const char *device, machine *m)
{
    char *end;

    m->any = device == NULL;
    m->gpu = -1;
    if (m->any) return true;
    m->cpu = strcmp(device, "cpu") == 0;
    if (m->cpu || strcmp(device, "cuda") == 0) return true;
    if (strncmp(device, "cuda:", 5) != 0 || strspn(device + 5, "0123456789") != strlen(device + 5)) return false;
    m->gpu = strtol(device + 5, &end, 10);
    return device[5] != '\0' && strlen(device + 5) < 10;
}

static void ask_driver(machine *m)
{
    gmsrt_device about;
    uint32_t count = 1;

    for (uint32_t i = 0; i < count && i < MAX_GPUS; i++) {
        const gmsrt_status status = gmsrt_probe_cuda(m->options->driver, i, &about, sizeof about);

        if (status != GMSRT_OK) {
            if (i == 0) gmsrt_copy_text(m->note, sizeof m->note, gmsrt_last_error());
            return;
        }
        count = about.count;
        gmsrt_copy_text(m->names[m->sm_count], sizeof m->names[0], about.name);
        m->sms[m->sm_count++] = about.sm;
    }
}

static gmsrt_status look_at_machine(const gmsrt_engine *engine, const gmsrt_select_options *options, machine *m)
{
    memset(m, 0, sizeof *m);
    m->options = options;
    if (!parse_device(options->device, m))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "unknown device '%.40s'; use cpu, cuda or cuda:N", options->device);
    if (options->trust_plans > 1)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "trust_plans is %u; give 0 or 1", options->trust_plans);
    if (options->sm_count > MAX_GPUS || (options->sm_count > 0 && options->sms == NULL))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "sm_count is %u; give as many sms, at most %u", options->sm_count,
                          MAX_GPUS);
    snprintf(m->note, sizeof m->note, "there is no GPU");
    if (options->sms != NULL) {
        m->sm_count = options->sm_count;
        for (uint32_t i = 0; i < m->sm_count; i++) m->sms[i] = options->sms[i];
    } else if (engine->plan_count > 0 && (m->any || !m->cpu)) {
        ask_driver(m);
    }
    return GMSRT_OK;
}

static const gmsrt_json *plan_at(const gmsrt_engine *engine, uint32_t index)
{
    const gmsrt_json *plan = engine->plans->first;

    while (index-- > 0) plan = plan->next;
    return plan;
}

/* What the manifest says of a way to run. */
static void describe(const gmsrt_engine *engine, uint32_t index, gmsrt_plan *found)
{
    const gmsrt_json *plan;
    int64_t number;

    memset(found, 0, sizeof *found);
    found->gpu = -1;
    found->version = found->device = "";
    if (index >= engine->plan_count) {
        const char *hash = gmsrt_json_text(engine->files, engine->info.model);

        found->target = GMSRT_TARGET_CPU;
        found->file = engine->info.model;
        found->sha256 = hash != NULL ? hash : "";
        return;
    }
    plan = plan_at(engine, index);
    found->target = gmsrt_target_of(gmsrt_json_text(plan, "target"));
    found->file = gmsrt_json_text(plan, "file");
    found->sha256 = gmsrt_json_text(plan, "sha256");
    found->version = gmsrt_json_text(plan, "version");
    if (gmsrt_json_text(plan, "device") != NULL) found->device = gmsrt_json_text(plan, "device");
    if (gmsrt_json_whole(gmsrt_json_member(plan, "bytes"), 0, INT64_MAX, &number)) found->bytes = (uint64_t)number;
    if (gmsrt_json_whole(gmsrt_json_member(plan, "sm"), 0, 100000, &number)) found->sm = (uint32_t)number;
}

static const char *flavour_version(const gmsrt_plan *plan, const gmsrt_select_options *options)
{
    if (plan->target == GMSRT_TARGET_TENSORRT) return options->tensorrt;
    return plan->target == GMSRT_TARGET_TENSORRT_RTX ? options->tensorrt_rtx : NULL;
}

/* "SM80, SM89": the GPUs that are asked for. */
static void list_sms(const machine *m, char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < m->sm_count && used + 12 < size; i++)
        if (m->gpu < 0 || m->gpu == (int64_t)i)
            used += (size_t)snprintf(text + used, size - used, "%sSM%u", used > 0 ? ", " : "", m->sms[i]);
}

/* The GPU of the plan's compute capability: of several the one that its kernels were timed on, else the first; -1: none. */
static int32_t find_gpu(const machine *m, const gmsrt_plan *plan)
{
    int32_t found = -1;

    for (uint32_t i = 0; i < m->sm_count; i++) {
        if (m->sms[i] != plan->sm || (m->gpu >= 0 && m->gpu != (int64_t)i)) continue;
        if (strcmp(m->names[i], plan->device) == 0) return (int32_t)i;
        if (found < 0) found = (int32_t)i;
    }
    return found;
}

static void judge_plan(const machine *m, gmsrt_plan *plan)
{
    const char *installed = flavour_version(plan, m->options);
    char *reason = plan->reason, here[200], why[300];
    const size_t size = sizeof plan->reason;

    plan->gpu = find_gpu(m, plan);
    list_sms(m, here, sizeof here);
    if (m->sm_count == 0)
        snprintf(reason, size, "%s", m->note);
    else if (m->gpu >= (int64_t)m->sm_count)
        snprintf(reason, size, "there is no GPU %lld, this machine has %u", (long long)m->gpu, m->sm_count);
    else if (plan->gpu < 0)
        snprintf(reason, size, "built for SM%u, this machine has %s", plan->sm, here);
    else if (installed == NULL)
        snprintf(reason, size, "needs %s, which this program does not have", target_names[plan->target]);
    else if (strcmp(installed, plan->version) != 0 && strcmp(installed, "unknown") != 0)
        snprintf(reason, size, "built with %s %.40s, this program has %.40s", target_names[plan->target], plan->version,
                 installed);
    else if (!m->options->trust_plans && !gmsrt_is_own_plan(plan->sha256, why, sizeof why)) {
        plan->untrusted = 1;
        snprintf(reason, size, "was not built on this machine%s%s%s", why[0] != '\0' ? " and cannot be trusted (" : "",
                 why, why[0] != '\0' ? ")" : "");
    }
    plan->fits = reason[0] == '\0';
}

/* An f16 engine is the same graph in f32, so it runs on any CPU. An INT8 engine with a bf16 remainder does if its gate was
 * met in f32 too; a bf16 engine would be the FP32 engine by another name. */
static void judge_cpu(const gmsrt_engine *engine, const gmsrt_select_options *options, gmsrt_plan *plan)
{
    gmsrt_processor about;
    const size_t size = sizeof plan->reason;

    plan->fits = 1;
    if (strcmp(engine->info.execution, "bf16") != 0 || strcmp(engine->info.fallback, "f32") == 0) return;
    plan->fits = 0;
    if (gmsrt_probe_cpu(options->openvino, &about, sizeof about) != GMSRT_OK)
        snprintf(plan->reason, size, "asks for bf16: it is not known whether this CPU has BF16 arithmetic (%.300s)",
                 gmsrt_last_error());
    else if (about.capabilities[0] == '\0')
        snprintf(
            plan->reason, size,
            "asks for bf16: it is not known whether this CPU has BF16 arithmetic (OpenVINO does not tell what this "
            "CPU computes in)");
    else if (!about.bf16)
        snprintf(plan->reason, size, "asks for bf16: OpenVINO has no BF16 arithmetic on this CPU (%s)", about.name);
    else
        plan->fits = 1;
}

static void judge(const gmsrt_engine *engine, const machine *m, gmsrt_plan *plan)
{
    if (plan->target == GMSRT_TARGET_CPU)
        judge_cpu(engine, m->options, plan);
    else
        judge_plan(m, plan);
}

static gmsrt_status take_options(const gmsrt_engine *engine, const gmsrt_select_options *given,
                                 gmsrt_select_options *taken, machine *m)
{
    static const uint32_t none = 0;
    gmsrt_status status = GMSRT_OK;

    *taken = default_options();
    if (given != NULL)
        status = gmsrt_struct_take(taken, sizeof *taken, given, "gmsrt_select_options");
    else
        taken->sms = &none; /* none of them: only the CPU */
    if (status == GMSRT_OK) status = look_at_machine(engine, taken, m);
    return status;
}

static const gmsrt_layout plan_layout = {sizeof(gmsrt_plan), offsetof(gmsrt_plan, reason),
                                         offsetof(gmsrt_plan, reason) + sizeof((gmsrt_plan *)NULL)->reason};

gmsrt_status gmsrt_engine_get_plan(const gmsrt_engine *engine, uint32_t index, const gmsrt_select_options *options,
                                   gmsrt_plan *plan, size_t size)
{
    gmsrt_select_options taken;
    gmsrt_status status;
    gmsrt_plan found;
    machine m;

    if (engine == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_engine_get_plan: a null pointer");
    if ((status = gmsrt_struct_room(plan, size, "gmsrt_plan")) != GMSRT_OK) return status;
    if (index >= engine->ways)
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "there is no plan %u, this engine has %u", index, engine->ways);
    describe(engine, index, &found);
    if (options != NULL) {
        if ((status = take_options(engine, options, &taken, &m)) != GMSRT_OK) return status;
        judge(engine, &m, &found);
    }
    gmsrt_struct_give(plan, size, &found, plan_layout);
    return GMSRT_OK;
}

/* Add to a text that is cut where it is full. */
static void append(char *text, size_t size, const char *more)
{
    const size_t used = strlen(text);

    snprintf(text + used, size - used, "%s", more);
}

gmsrt_status gmsrt_engine_select(const gmsrt_engine *engine, const gmsrt_select_options *options, gmsrt_plan *plan,
                                 size_t size)
{
    char reasons[800] = "", untrusted[600] = "";
    gmsrt_select_options taken;
    gmsrt_status status;
    gmsrt_plan found;
    machine m;

    if (engine == NULL) return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "gmsrt_engine_select: a null pointer");
    if ((status = gmsrt_struct_room(plan, size, "gmsrt_plan")) != GMSRT_OK) return status;
    if ((status = take_options(engine, options, &taken, &m)) != GMSRT_OK) return status;
    for (uint32_t i = 0; i < engine->ways; i++) {
        const bool cpu = i >= engine->plan_count;

        describe(engine, i, &found);
        if (!m.any && (found.target == GMSRT_TARGET_CPU) != m.cpu) continue;
        judge(engine, &m, &found);
        if (found.fits) {
            if (cpu && untrusted[0] != '\0') snprintf(found.reason, sizeof found.reason, "%.511s", untrusted);
            gmsrt_struct_give(plan, size, &found, plan_layout);
            return GMSRT_OK;
        }
        if (found.untrusted && untrusted[0] == '\0')
            snprintf(untrusted, sizeof untrusted, "plan %.255s %.200s: running the CPU graph", found.file,
                     found.reason);
        if (reasons[0] != '\0') append(reasons, sizeof reasons, "; ");
        append(reasons, sizeof reasons, cpu ? "cpu graph" : found.file);
        append(reasons, sizeof reasons, ": ");
        append(reasons, sizeof reasons, found.reason);
    }
    return gmsrt_fail(
        GMSRT_NO_DEVICE, "%s cannot run%s%.40s on this machine (%s); %s", engine->folder, m.any ? "" : " on ",
        m.any ? "" : options->device, reasons[0] != '\0' ? reasons : "nothing built for it",
        untrusted[0] != '\0' ? "build it here, or trust its plans with trust_plans" : "build it here: gms-rt build");
}
