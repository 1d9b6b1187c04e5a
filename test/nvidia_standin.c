/* What the doctor calls of libcuda, libcudart and cuDNN, with answers chosen by macros. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#ifdef DRIVER
int cuDriverGetVersion(int *version) { *version = DRIVER; return 0; }
int cuInit(unsigned flags)
{
#ifdef CRASH
    raise(SIGSEGV);
#endif
#ifdef HANG
    sleep(60);
#endif
    return INIT;
}
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 1 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute == 75 ? 8 : 7;
    return 0;
}
#endif
#ifdef RUNTIME
int cudaRuntimeGetVersion(int *version) { *version = RUNTIME; return 0; }
#endif
