#ifndef CONCLAVE_TESTS_CUDA_FAULTS_H
#define CONCLAVE_TESTS_CUDA_FAULTS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Runs the kernel with the fault of that name, or "right NAME": without it. 0: right answers; 3: wrong ones; 4: the launch
 * was refused. What the fake finds itself ends the process. */
int fault_run(const char *what);

#ifdef __cplusplus
}
#endif
#endif
