// Adam and AdamW over a table of arrays: blocks walk all elements of all arrays; see c/optim.c for the formula.
#include "types.cuh"

// Every pointer is the address of a float32 array.  `ends` holds the running total of the arrays' sizes.
extern "C" __global__ void adam_float32(float *const *params, const float *const *grads, float *const *means,
    float *const *squares,
                                        const long long *ends, const double *step_sizes, const double *root_corrections,
                                        long long arrays, double lr, double beta1, double beta2, double eps,
                                        double weight_decay, int decoupled, int maximize) {
    float b2 = float(beta2), c1 = float(1 - beta1), c2 = float(1 - beta2), tiny = float(eps),
        sign = maximize ? -1.f : 1.f;
    float keep = decoupled ? float(1 - lr * weight_decay) : 1.f, l2 = decoupled ? 0.f : float(weight_decay);
    EACH(i, ends[arrays - 1]) {
        long long low = 0, high = arrays - 1; // the first array that ends after i
        while (low < high) {
            long long middle = (low + high) / 2;
            if (i < ends[middle]) high = middle;
            else low = middle + 1;
        }
        long long at = low ? i - ends[low - 1] : i;
        float p = params[low][at] * keep, g = sign * grads[low][at] + l2 * p;
        float m = means[low][at], v = squares[low][at] * b2 + c2 * g * g;
        m += c1 * (g - m);
        means[low][at] = m;
        squares[low][at] = v;
        params[low][at] = p - float(step_sizes[low]) * (m / (sqrtf(v) / float(root_corrections[low]) + tiny));
    }
}
