#include "command.h"

int main(int argc, char **argv)
{
    return draft_main(argc, argv);
}
