/* A node of the graph: it has an operator and as many inputs and outputs as that takes, and reads what is there. */
#include <string.h>

#include "onnx_check.h"

enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_NAME = 3, NODE_OPERATOR = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7 };
enum { ATTRIBUTE_T = 5, ATTRIBUTE_G = 6, ATTRIBUTE_TENSORS = 10, ATTRIBUTE_GRAPHS = 11 };

typedef struct node {
    char name[128], operator[64], domain[32];
    char what[256]; /* "node 'x' (Conv)" */
    unsigned inputs, outputs;
} node;

static bool check_count(gmsrt_check *check, const node *n, unsigned count, unsigned low, unsigned high,
                        const char *kind)
{
    char wanted[40];

    if (count >= low && (high == GMSRT_ANY || count <= high)) return true;
    if (high == GMSRT_ANY)
        snprintf(wanted, sizeof wanted, "at least %u", low);
    else if (low == high)
        snprintf(wanted, sizeof wanted, "%u", low);
    else
        snprintf(wanted, sizeof wanted, high == low + 1 ? "%u or %u" : "%u to %u", low, high);
    return gmsrt_complain(check, "%s has %u %s%s, needs %s", n->what, count, kind, count == 1 ? "" : "s", wanted);
}

/* The node's words and counts. */
static bool read_node(gmsrt_check *check, gmsrt_span message, uint64_t number, node *n)
{
    gmsrt_field field;

    memset(n, 0, sizeof *n);
    while (gmsrt_next_part(check, &message, &field)) {
        switch (field.number) {
        case NODE_INPUT: n->inputs++; break;
        case NODE_OUTPUT: n->outputs++; break;
        case NODE_NAME: gmsrt_read_short(check, field.body, n->name, sizeof n->name); break;
        case NODE_OPERATOR: gmsrt_read_short(check, field.body, n->operator, sizeof n->operator); break;
        case NODE_DOMAIN: gmsrt_read_short(check, field.body, n->domain, sizeof n->domain); break;
        default: break;
        }
    }
    if (n->name[0] == '\0') snprintf(n->name, sizeof n->name, "number %llu", (unsigned long long)number);
    snprintf(n->what, sizeof n->what, "node '%s' (%s)", n->name, n->operator);
    if (n->operator[0] == '\0') return gmsrt_complain(check, "node '%s' has no operator", n->name);
    if (n->outputs == 0) return gmsrt_complain(check, "%s has no output", n->what);
    return gmsrt_is_sound(check);
}

/* Every input that is named is known; the first `needed` are named. */
static bool check_inputs(gmsrt_check *check, gmsrt_span message, const node *n, unsigned needed)
{
    gmsrt_field field;
    unsigned index = 0;

    while (gmsrt_next_part(check, &message, &field)) {
        if (field.number != NODE_INPUT) continue;
        if (!gmsrt_read_name(check, field.body)) return false;
        if (check->text[0] == '\0' && index < needed)
            return gmsrt_complain(check, "%s leaves out its input %u", n->what, index + 1);
        if (check->text[0] != '\0' && !gmsrt_names_has(&check->names, check->text))
            return gmsrt_complain(check, "%s reads '%.200s', which nothing before it makes", n->what, check->text);
        index++;
    }
    return gmsrt_is_sound(check);
}

static bool check_attributes(gmsrt_check *check, gmsrt_span message, const node *n, bool standard)
{
    gmsrt_field attribute, field;

    while (gmsrt_next_part(check, &message, &attribute)) {
        gmsrt_span rest = attribute.body;

        if (attribute.number != NODE_ATTRIBUTE) continue;
        if (standard && !gmsrt_check_attribute(check, attribute.body, n->what)) return false;
        while (gmsrt_next_part(check, &rest, &field)) {
            if ((field.number == ATTRIBUTE_T || field.number == ATTRIBUTE_TENSORS) &&
                !gmsrt_check_tensor(check, field.body, n->what))
                return false;
            if ((field.number == ATTRIBUTE_G || field.number == ATTRIBUTE_GRAPHS) &&
                !gmsrt_check_graph(check, field.body))
                return false;
        }
    }
    return gmsrt_is_sound(check);
}

static bool add_outputs(gmsrt_check *check, gmsrt_span message, const node *n)
{
    gmsrt_field field;

    while (gmsrt_next_part(check, &message, &field)) {
        if (field.number != NODE_OUTPUT) continue;
        if (!gmsrt_read_name(check, field.body)) return false;
        if (check->text[0] == '\0') continue; /* nobody wants this one */
        if (gmsrt_names_has_here(&check->names, check->text))
            return gmsrt_complain(check, "%s makes '%.200s', which is there already", n->what, check->text);
        if (!gmsrt_add_name(check)) return false;
    }
    return gmsrt_is_sound(check);
}

bool gmsrt_check_node(gmsrt_check *check, gmsrt_span message, uint64_t number)
{
    const gmsrt_operator *limits = NULL;
    unsigned needed = 0;
    bool standard;
    node n;

    if (!read_node(check, message, number, &n)) return false;
    standard = gmsrt_is_standard(n.domain);
    if (standard) limits = gmsrt_find_operator(n.operator);
    if (limits != NULL) needed = gmsrt_min_inputs(limits, check->opset);
    if (limits != NULL && (!check_count(check, &n, n.inputs, needed, limits->max_inputs, "input") ||
                           !check_count(check, &n, n.outputs, 1, limits->max_outputs, "output")))
        return false;
    return check_inputs(check, message, &n, needed) && check_attributes(check, message, &n, standard) &&
           add_outputs(check, message, &n);
}
