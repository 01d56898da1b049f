#include "command.h"

#ifdef __SANITIZE_ADDRESS__
/* fontconfig keeps a cache for the life of the process. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfontconfig";
}
#endif

int main(int argc, char **argv)
{
    return draft_main(argc, argv);
}
