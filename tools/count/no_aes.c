/* Preloaded into a program under qemu-user: the processor of a Raspberry Pi 3 or 4, which has no instructions for AES,
   GHASH or SHA (bits 3 to 6 of AT_HWCAP), so that the ciphers of those machines are counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/auxv.h>

#define CRYPTOGRAPHY (0xful << 3)

unsigned long getauxval(unsigned long type)
{
    static unsigned long (*real)(unsigned long);
    if (!real)
        real = (unsigned long (*)(unsigned long))dlsym(RTLD_NEXT, "getauxval");
    unsigned long value = real(type);
    return type == AT_HWCAP ? value & ~CRYPTOGRAPHY : value;
}
