/* AVX-512: attention. */
#include "compute/avx512_priv.h"

#include "compute/vector_attention_priv.h"
#include "compute/vector_stick_priv.h"

void cpu_avx512_attention(const cpu_attention *a)
{
    vector_attention(a);
}

void cpu_avx512_stick(cpu_stick *s)
{
    vector_stick(s);
}
