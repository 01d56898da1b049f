/* What the samplers' files share: timesteps by spacing, noise levels, Karras's sigmas. */
#ifndef DRAFT_SAMPLER_LEVELS_H
#define DRAFT_SAMPLER_LEVELS_H

#include "sampler/sampler.h"

/* Timestep i of count in sampling order, not rounded where diffusers rounds linspace later. */
double draft_timestep_leading(int n, int count, int i, int offset);
double draft_timestep_trailing(int n, int count, int i);
double draft_timestep_linspace(int n, int count, int i);

/* The spacing of samplers whose own default is linspace. */
enum draft_spacing draft_spacing_or_linspace(const struct draft_scheduler *scheduler);

/* sigma = sqrt((1 - a) / a), as float32, at a timestep between two trained ones by interpolation. With a schedule of
 * zero terminal signal the last a is 2^-24, as diffusers has it, lest sigma be infinite. */
double draft_sigma_at(const struct draft_scheduler *scheduler, double timestep);
/* The timestep whose sigma this is, interpolated in log sigma. */
double draft_timestep_of(const struct draft_scheduler *scheduler, double sigma);
/* Karras et al. 2022 (arXiv 2206.00364), equation 5 with rho 7: sigma i of count, from max down to min. */
double draft_karras_sigma(double max, double min, int count, int i);
/* Refuses settings of the sigmas beyond these. */
bool draft_plain_sigmas(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler,
                        struct draft_error *err);

/* Fills timestep, signal, noise, input_scale and the coefficients of x_0 and epsilon. */
void draft_step_level(struct draft_sampler_step *step, double timestep, double signal, double noise, double input_scale,
                      enum draft_prediction prediction);

#endif
