/* NVIDIA's management library as a report needs it, for tests: one GPU whose figures the test sets. Its energy counter
 * runs at the set draw for the seconds that the test lets pass. It checks that it is started, that the device is the one it gave out, and that
 * each start is followed by one end. FAKE_NVML_OLD leaves out what drivers before Volta's time lack, FAKE_NVML_BARE
 * even the start. */
#include <stdint.h>

#include "fake.h"

#define NVML_UNINITIALIZED 1
#define NVML_INVALID_ARGUMENT 2
#define NVML_NOT_FOUND 6

static int device; /* its address is the handle */
static unsigned milliwatts = 65000, sm_clock = 1410, temperature = 47, busy = 93;
static unsigned long long used = 3ULL << 30, millijoules = 5000000000ULL; /* as after weeks */
static char place[32] = "00000000:3B:00.0";

FAKE_CONTROLS(fake_nvml)
FAKE_API void fake_nvml_set_milliwatts(unsigned value);
FAKE_API void fake_nvml_set_clock(unsigned value);
FAKE_API void fake_nvml_pass(double seconds);

void fake_nvml_reset(void)
{
    fake_reset_record();
    fake_live = 0;
    milliwatts = 65000;
    sm_clock = 1410;
}

void fake_nvml_set_milliwatts(unsigned value)
{
    milliwatts = value;
}
void fake_nvml_set_clock(unsigned value)
{
    sm_clock = value;
}
void fake_nvml_pass(double seconds)
{
    millijoules += (unsigned long long)(seconds * milliwatts + 0.5);
}

#ifndef FAKE_NVML_BARE
FAKE_API int nvmlInitWithFlags(unsigned flags);
FAKE_API int nvmlShutdown(void);
FAKE_API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle);
FAKE_API int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle);
FAKE_API int nvmlDeviceGetClockInfo(void *handle, unsigned kind, unsigned *value);
FAKE_API int nvmlDeviceGetMaxClockInfo(void *handle, unsigned kind, unsigned *value);
FAKE_API int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *value);
FAKE_API int nvmlDeviceGetPowerUsage(void *handle, unsigned *value);
FAKE_API int nvmlDeviceGetUtilizationRates(void *handle, unsigned *value);
FAKE_API int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *value);
FAKE_API int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *value);
FAKE_API int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *value);

/* Record a call that needs a started library and, where it has one, this device. */
static int enter(const char *name, const void *handle, const void *value)
{
    const int code = fake_enter(name);

    if (code != 0) return code;
    if (fake_live < 1) {
        fake_mistake("%s before nvmlInitWithFlags", name);
        return NVML_UNINITIALIZED;
    }
    if (handle != &device || value == NULL) {
        fake_mistake("%s with another device or nowhere to write", name);
        return NVML_INVALID_ARGUMENT;
    }
    return 0;
}

int nvmlInitWithFlags(unsigned flags)
{
    const int code = fake_enter("nvmlInitWithFlags");

    if (flags != 0) fake_mistake("nvmlInitWithFlags with flags %u", flags);
    if (code == 0) fake_live++;
    return fake_leave(code);
}

int nvmlShutdown(void)
{
    const int code = fake_enter("nvmlShutdown");

    if (fake_live-- < 1) fake_mistake("nvmlShutdown without nvmlInitWithFlags");
    return fake_leave(code);
}

static int give_handle(const char *name, bool found, void **handle)
{
    const int code = enter(name, &device, handle);

    if (code == 0 && found) *handle = &device;
    return fake_leave(code != 0 ? code : found ? 0 : NVML_NOT_FOUND);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    return give_handle("nvmlDeviceGetHandleByIndex_v2", index == 0, handle);
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle)
{
    return give_handle("nvmlDeviceGetHandleByPciBusId_v2", strcmp(bus, place) == 0, handle);
}

#define GETTER(name, type, result)                                                                                     \
    int name(void *handle, type *value)                                                                                \
    {                                                                                                                  \
        const int code = enter(#name, handle, value);                                                                  \
        if (code == 0) *value = (result);                                                                              \
        return fake_leave(code);                                                                                       \
    }
#define KIND_GETTER(name, result)                                                                                      \
    int name(void *handle, unsigned kind, unsigned *value)                                                             \
    {                                                                                                                  \
        const int code = enter(#name, handle, value);                                                                  \
        if (code == 0) *value = (result);                                                                              \
        return fake_leave(code);                                                                                       \
    }

KIND_GETTER(nvmlDeviceGetClockInfo, kind == 1 ? sm_clock : 1215)
KIND_GETTER(nvmlDeviceGetMaxClockInfo, kind == 1 ? 1410 : 1215)
KIND_GETTER(nvmlDeviceGetTemperature, kind == 0 ? temperature : 0)
GETTER(nvmlDeviceGetPowerUsage, unsigned, milliwatts)
GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0x4)

int nvmlDeviceGetUtilizationRates(void *handle, unsigned *value)
{
    const int code = enter("nvmlDeviceGetUtilizationRates", handle, value);

    if (code == 0) {
        value[0] = busy;
        value[1] = 40;
    }
    return fake_leave(code);
}

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *value)
{
    const int code = enter("nvmlDeviceGetMemoryInfo", handle, value);

    if (code == 0) {
        value[0] = 40ULL << 30;
        value[1] = value[0] - used;
        value[2] = used;
    }
    return fake_leave(code);
}

#ifndef FAKE_NVML_OLD
GETTER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, millijoules)
#endif
#endif
