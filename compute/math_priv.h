/* The coefficients of docs/numeric.md, "Functions", for math.c, its vector twins and cuda/math.cuh: c[0] + x * (c[1] + x *
 * (...)). They are lists, as device code cannot read a host's arrays. */
#ifndef CONCLAVE_COMPUTE_MATH_PRIV_H
#define CONCLAVE_COMPUTE_MATH_PRIV_H

#define MATH_EXP_P5 0x1p-1f, 0x1.555556p-3f, 0x1.5554ep-5f, 0x1.1110dcp-7f, 0x1.6d4f3cp-10f, 0x1.a12fbp-13f
#define MATH_LOG_P8                                                                                                    \
    0x1.555554p-2f, -0x1.fffffcp-3f, 0x1.999d5ap-3f, -0x1.555b4ap-3f, 0x1.23d21ap-3f, -0x1.fcf4c6p-4f, 0x1.dea282p-4f, \
        -0x1.d635bcp-4f, 0x1.1d8ea6p-4f
#define MATH_ERF_P7                                                                                                    \
    0x1.06eba8p-3f, -0x1.812746p-2f, 0x1.ce2f18p-4f, -0x1.b82b6ep-6f, 0x1.564094p-8f, -0x1.be00bep-11f,                \
        0x1.e0a102p-14f, -0x1.59e90cp-17f
#define MATH_ERF_Q8                                                                                                    \
    -0x1.4e0356p-12f, 0x1.2156d2p0f, -0x1.790326p-2f, 0x1.c2eac2p-4f, -0x1.b0fd8cp-6f, 0x1.381f9ap-8f,                 \
        -0x1.394e9ap-11f, 0x1.83402p-15f, -0x1.b90e7ap-20f
#define MATH_TANH_P5 -0x1.555556p-2f, 0x1.1110e4p-3f, -0x1.ba0718p-5f, 0x1.648e8ep-6f, -0x1.10bbf4p-7f, 0x1.2977d8p-9f

#ifndef __cplusplus
static const float math_exp_p5[] = {MATH_EXP_P5};
static const float math_log_p8[] = {MATH_LOG_P8};
static const float math_erf_p7[] = {MATH_ERF_P7};
static const float math_erf_q8[] = {MATH_ERF_Q8};
static const float math_tanh_p5[] = {MATH_TANH_P5};
#endif

#define MATH_ROOT_HALF  0x1.6a09e6p-1f /* sqrt(1/2) */
#define MATH_GELU_SCALE 0x1.988454p-1f /* sqrt(2/pi) */
#define MATH_GELU_CUBE  0x1.6e4e26p-5f /* 0.044715 */

#endif
