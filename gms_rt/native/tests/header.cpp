// Compiled and linked only: the header in C++.
#include "gms_rt.h"

int main()
{
    gmsrt_cpu_options options;
    gmsrt_cpu_options_init(&options, sizeof options);
    return gmsrt_abi_version() == GMSRT_ABI_VERSION && options.struct_size == sizeof options ? 0 : 1;
}
