/* Reads one packed message of the type in argv[1] from standard input and prints its JSON, for cli_json.py. */
#include <conclave/v1/admin.pb-c.h>
#include <conclave/v1/inference.pb-c.h>
#include <string.h>

#include "cli/message.h"

int main(int argc, char **argv)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &conclave__v1__generate_request__descriptor,      &conclave__v1__generate_response__descriptor,
        &conclave__v1__complete_response__descriptor,     &conclave__v1__score_response__descriptor,
        &conclave__v1__get_model_response__descriptor,    &conclave__v1__get_cluster_response__descriptor,
        &conclave__v1__list_experts_response__descriptor, &conclave__v1__get_expert_stats_response__descriptor,
    };
    static unsigned char bytes[1 << 20];
    size_t n = fread(bytes, 1, sizeof(bytes), stdin);

    for (size_t i = 0; argc == 2 && i < MOE_COUNT(types); i++) {
        ProtobufCMessage *message;
        moe_text json;

        if (strcmp(types[i]->short_name, argv[1]) != 0) {
            continue;
        }
        message = protobuf_c_message_unpack(types[i], NULL, n, bytes);
        if (message == NULL) {
            return 1;
        }
        moe_text_init(&json, (size_t)1 << 26);
        cli_message_json(message, &json);
        puts(moe_text_cstr(&json));
        moe_text_fini(&json);
        protobuf_c_message_free_unpacked(message, NULL);
        return 0;
    }
    return 1;
}
