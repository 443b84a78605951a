/* AVX2: attention. */
#include "compute/avx2_priv.h"

#include "compute/vector_attention_priv.h"
#include "compute/vector_stick_priv.h"

void cpu_avx2_attention(const cpu_attention *a)
{
    vector_attention(a);
}

void cpu_avx2_stick(cpu_stick *s)
{
    vector_stick(s);
}
