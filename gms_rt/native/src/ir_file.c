/* OpenVINO's own form of a graph: NAME.xml with its constants in NAME.xml.bin. It says what ONNX cannot, which nodes keep
 * f32 where the others run in bf16 or f16. Nothing in it names another file: OpenVINO is given both. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"

#define SUFFIX ".xml"
#define CONSTANTS ".bin"
#define START 512 /* bytes in which the document must have begun */

bool gmsrt_is_ir(const char *path)
{
    const size_t length = strlen(path);

    return length > strlen(SUFFIX) && strcmp(path + length - strlen(SUFFIX), SUFFIX) == 0;
}

bool gmsrt_ir_constants(const char *path, char *found, size_t size)
{
    return snprintf(found, size, "%s" CONSTANTS, path) < (int)size;
}

/* Whether a file begins as such a document does. */
static bool begins_well(const char *path)
{
    char start[START + 1];
    FILE *file = fopen(path, "rb");
    const size_t length = file != NULL ? fread(start, 1, START, file) : 0;

    if (file != NULL) fclose(file);
    start[length] = '\0';
    return strncmp(start, "<?xml", 5) == 0 && strstr(start, "<net ") != NULL;
}

gmsrt_status gmsrt_read_ir(const char *path, gmsrt_files *files)
{
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    char constants[4096 + sizeof CONSTANTS], own[GMSRT_MAX_FILE_NAME];
    struct stat about;
    gmsrt_file *file;

    if (!gmsrt_ir_constants(path, constants, sizeof constants) || !gmsrt_ir_constants(name, own, sizeof own))
        return gmsrt_fail(GMSRT_INVALID_ARGUMENT, "the path of the graph is too long");
    if (stat(path, &about) != 0) return gmsrt_fail(GMSRT_NOT_FOUND, "%s: %s", path, strerror(errno));
    if (!S_ISREG(about.st_mode)) return gmsrt_fail(GMSRT_BAD_GRAPH, "%s is not a file", path);
    if (!gmsrt_file_see(&files->items[0], &about))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s was changed while it was being opened; open it again", path);
    if (!begins_well(path))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s is not OpenVINO's form of a graph or is cut short", path);
    if (stat(constants, &about) != 0 || !S_ISREG(about.st_mode))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s has its constants in '%s', which is not there; copy that file too", path,
                          own);
    file = gmsrt_files_add(files, own, strlen(own));
    if (file == NULL) return gmsrt_fail(GMSRT_OUT_OF_MEMORY, "no memory to read %s", path);
    if (!gmsrt_file_see(file, &about))
        return gmsrt_fail(GMSRT_BAD_GRAPH, "%s was changed while it was being opened; open it again", constants);
    return GMSRT_OK;
}
