/* The table of the instruction set being compiled. */
#include "backend/cpu/kernels/kernels_isa.h"
#include "backend/cpu/kernels/tables.h"

const struct draft_kernels ISA(kernels) = {
    .isa = DRAFT_ISA_NAME,
    .vector = VL,
    .mr = MR,
    .nr = NR,
    .block = ISA(block),
#if defined(__AVX512BF16__)
    .block_pairs = ISA(block_pairs),
    .pair_columns = ISA(pair_columns),
    .pair_rows = ISA(pair_rows),
    .words = ISA(words),
    .winograd_words = {ISA(winograd_input_words), ISA(winograd_output_words)},
#endif
    .pack_panel = ISA(pack_panel),
    .thin = ISA(thin),
    .winograd_weights = ISA(winograd_weights),
    .winograd = {ISA(winograd_input), ISA(winograd_output)},
    .softmax_panel = ISA(softmax_panel),
    .scale_panel = ISA(scale_panel),
    .turn_panel = ISA(turn_panel),
    .softmax_backward_rows = ISA(softmax_backward_rows),
    .move_rows = ISA(move_rows),
    .row_dots = ISA(row_dots),
    .group_moments = ISA(group_moments),
    .norm_apply = ISA(norm_apply),
    .norm_sums = ISA(norm_sums),
    .norm_dx = ISA(norm_dx),
    .layer_norm = ISA(layer_norm),
    .layer_norm_dx = ISA(layer_norm_dx),
    .layer_norm_sums = ISA(layer_norm_sums),
    .sum_rows = ISA(sum_rows),
    .map = ISA(map),
    .map_backward = ISA(map_backward),
    .geglu = ISA(geglu),
    .geglu_backward = ISA(geglu_backward),
    .axpby = ISA(axpby),
};
