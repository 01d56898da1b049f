#include "backend/plugin.h"
#include "ops/jpeg.h"
#include "ops/op.h"
#include "tensor/weight_source.h"

const struct draft_services draft_services = {.grad = draft_grad,
                                              .grad_in_place = draft_grad_in_place,
                                              .grad_pass = draft_grad_pass,
                                              .new_tensor = draft_new,
                                              .temporary = draft_temporary,
                                              .note = draft_note,
                                              .mark = draft_graph_mark,
                                              .release = draft_graph_release,
                                              .jpeg_model = draft_jpeg_model,
                                              .weight_rows = draft_weight_rows,
                                              .weight_unchanged = draft_weight_unchanged};
