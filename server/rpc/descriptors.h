/* The protocol as protoc understood it: a serialized google.protobuf.FileDescriptorSet with all imports, embedded. */
#ifndef DRAFTD_RPC_DESCRIPTORS_H
#define DRAFTD_RPC_DESCRIPTORS_H

#include <stdint.h>

extern const uint8_t draftd_descriptors[], draftd_descriptors_end[];

#endif
