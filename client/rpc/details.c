#include "rpc/details.h"

#include <stdio.h>
#include <string.h>

#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"

static const char *type_name(const char *url)
{
    const char *slash = strrchr(url, '/');
    return slash ? slash + 1 : url;
}

void draft_details_parse(const uint8_t *bytes, size_t length, struct draft_status *st)
{
    Google__Rpc__Status *status = google__rpc__status__unpack(NULL, length, bytes);
    if (!status)
        return;
    for (size_t i = 0; i < status->n_details; i++) {
        const Google__Protobuf__Any *any = status->details[i];
        const char *type = type_name(any->type_url);
        if (!strcmp(type, "google.rpc.ErrorInfo")) {
            Google__Rpc__ErrorInfo *info = google__rpc__error_info__unpack(NULL, any->value.len, any->value.data);
            if (info) {
                snprintf(st->reason, sizeof st->reason, "%s", info->reason);
                google__rpc__error_info__free_unpacked(info, NULL);
            }
        } else if (!strcmp(type, "google.rpc.BadRequest")) {
            Google__Rpc__BadRequest *bad = google__rpc__bad_request__unpack(NULL, any->value.len, any->value.data);
            if (bad && bad->n_field_violations > 0)
                snprintf(st->field, sizeof st->field, "%s", bad->field_violations[0]->field);
            if (bad)
                google__rpc__bad_request__free_unpacked(bad, NULL);
        }
    }
    google__rpc__status__free_unpacked(status, NULL);
}
