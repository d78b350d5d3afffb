/* Segment every frame of a video that FFmpeg decodes, or of a region of it, and write the masks as raw grey frames.
 *
 *     cc video.c $(pkg-config --cflags --libs gms_rt libavformat libavcodec libavutil) -o segment-video
 *     ./segment-video engines/busi-int8 scan.mp4 masks.gray [X Y WIDTH HEIGHT]
 *     ffplay -f rawvideo -pixel_format gray -video_size 640x480 masks.gray
 *
 * The decoder's frames are converted and resized inside gms_rt, as the Python package does it, with no swscale and no
 * copy before. While a frame is segmented, the next one is decoded and converted. */
#include <gms_rt.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <stdio.h>
#include <stdlib.h>

#define THRESHOLD 0.5 /* probability from which a pixel is foreground, as in gms-rt infer */

/* A frame on its way through the network. */
typedef struct slot {
    uint8_t *input, *levels; /* of the network's size */
    gmsrt_ticket ticket;     /* 0: none is under way */
} slot;

typedef struct program {
    gmsrt_runner *runner;
    gmsrt_info info;
    uint32_t region[4];     /* x, y, width, height; zeros: the whole frame */
    uint32_t width, height; /* of the masks */
    uint8_t *rgb, *mask;
    slot slots[2];
    uint64_t frames;
    FILE *out;
} program;

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return -1;
}

static int failed(void)
{
    return fail("segment-video", gmsrt_last_error());
}

/* The decoder's frame as gms_rt sees it; the frame keeps its memory. */
static int describe(const AVFrame *from, const uint32_t region[4], gmsrt_frame *frame)
{
    if (gmsrt_frame_init(frame, sizeof *frame) != GMSRT_OK) return failed();
    switch (from->format) {
    case AV_PIX_FMT_YUV420P:
    case AV_PIX_FMT_YUVJ420P: frame->format = GMSRT_I420; break;
    case AV_PIX_FMT_NV12: frame->format = GMSRT_NV12; break;
    case AV_PIX_FMT_GRAY8: frame->format = GMSRT_GRAY; break;
    case AV_PIX_FMT_RGB24: frame->format = GMSRT_RGB; break;
    case AV_PIX_FMT_BGR24: frame->format = GMSRT_BGR; break;
    case AV_PIX_FMT_RGBA: frame->format = GMSRT_RGBA; break;
    case AV_PIX_FMT_BGRA: frame->format = GMSRT_BGRA; break;
    default: return fail("segment-video", "this format of pixels needs swscale first: ffmpeg -i … -pix_fmt nv12");
    }
    if (from->colorspace == AVCOL_SPC_BT709)
        frame->matrix = GMSRT_BT709;
    else if (from->colorspace == AVCOL_SPC_UNSPECIFIED)
        frame->matrix = from->height >= 720 ? GMSRT_BT709 : GMSRT_BT601; /* as players do */
    else if (from->colorspace != AVCOL_SPC_BT470BG && from->colorspace != AVCOL_SPC_SMPTE170M &&
             from->colorspace != AVCOL_SPC_RGB)
        return fail("segment-video", "neither BT.601 nor BT.709: ffmpeg -i … -vf scale=out_color_matrix=bt709");
    if (from->color_range == AVCOL_RANGE_JPEG || from->format == AV_PIX_FMT_YUVJ420P) frame->range = GMSRT_FULL;
    frame->width = (uint32_t)from->width;
    frame->height = (uint32_t)from->height;
    frame->x = region[0];
    frame->y = region[1];
    frame->region_width = region[2];
    frame->region_height = region[3];
    for (int i = 0; i < 3 && from->data[i] != NULL; i++) {
        if (from->linesize[i] < 0) return fail("segment-video", "a frame whose rows go upwards");
        frame->planes[i] = from->data[i];
        frame->strides[i] = (size_t)from->linesize[i];
    }
    return 0;
}

/* Memory for a video of this size. All frames must have it. */
static int make_room(program *p, const AVFrame *frame)
{
    p->width = p->region[2] > 0 ? p->region[2] : (uint32_t)frame->width;
    p->height = p->region[3] > 0 ? p->region[3] : (uint32_t)frame->height;
    p->rgb = malloc((size_t)p->width * p->height * 3);
    p->mask = malloc((size_t)p->width * p->height);
    return p->rgb != NULL && p->mask != NULL ? 0 : fail("segment-video", "no memory");
}

/* Wait for a slot's frame and write its mask. */
static int finish(program *p, slot *s)
{
    const size_t size = (size_t)p->width * p->height;

    if (s->ticket == 0) return 0;
    if (gmsrt_wait(p->runner, s->ticket, -1) != GMSRT_OK) return failed();
    s->ticket = 0;
    if (gmsrt_mask_from_levels(s->levels, p->info.height, p->info.width, THRESHOLD, p->mask, p->height, p->width) !=
        GMSRT_OK)
        return failed();
    return fwrite(p->mask, 1, size, p->out) == size ? 0 : fail("segment-video", "the masks cannot be written");
}

static int begin(program *p, const AVFrame *decoded)
{
    slot *s = &p->slots[p->frames++ % 2];
    gmsrt_frame frame;

    if (p->rgb == NULL && make_room(p, decoded) != 0) return -1;
    if (p->region[2] == 0 && ((uint32_t)decoded->width != p->width || (uint32_t)decoded->height != p->height))
        return fail("segment-video", "the frames change their size");
    if (finish(p, s) != 0 || describe(decoded, p->region, &frame) != 0) return -1;
    if (gmsrt_rgb_from_frame(&frame, p->rgb, 0) != GMSRT_OK ||
        gmsrt_resize_image(p->rgb, p->height, p->width, 3, s->input, p->info.height, p->info.width) != GMSRT_OK ||
        gmsrt_submit(p->runner, s->input, 1, s->levels, NULL, NULL, &s->ticket) != GMSRT_OK)
        return failed();
    return 0;
}

/* Hand a packet to the decoder (NULL: the end) and begin with every frame that it has then. */
static int decode(program *p, AVCodecContext *decoder, const AVPacket *packet, AVFrame *frame)
{
    int code = avcodec_send_packet(decoder, packet);

    while (code >= 0) {
        code = avcodec_receive_frame(decoder, frame);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return 0;
        if (code >= 0 && begin(p, frame) != 0) return -1;
    }
    return fail("segment-video", av_err2str(code));
}

static int run(program *p, AVFormatContext *input, AVCodecContext *decoder, int stream)
{
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    int code = packet != NULL && frame != NULL ? 0 : fail("segment-video", "no memory");

    while (code == 0 && av_read_frame(input, packet) >= 0) {
        if (packet->stream_index == stream) code = decode(p, decoder, packet, frame);
        av_packet_unref(packet);
    }
    if (code == 0) code = decode(p, decoder, NULL, frame);
    for (int i = 0; i < 2 && code == 0; i++) code = finish(p, &p->slots[p->frames++ % 2]);
    av_frame_free(&frame);
    av_packet_free(&packet);
    return code;
}

static int open_video(const char *path, AVFormatContext **input, AVCodecContext **decoder, int *stream)
{
    const AVCodec *codec = NULL;
    int code = avformat_open_input(input, path, NULL, NULL);

    if (code >= 0) code = avformat_find_stream_info(*input, NULL);
    if (code >= 0) code = *stream = av_find_best_stream(*input, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (code < 0) return fail(path, av_err2str(code));
    *decoder = avcodec_alloc_context3(codec);
    if (*decoder == NULL) return fail(path, "no memory");
    code = avcodec_parameters_to_context(*decoder, (*input)->streams[*stream]->codecpar);
    if (code >= 0) code = avcodec_open2(*decoder, codec, NULL);
    return code >= 0 ? 0 : fail(path, av_err2str(code));
}

int main(int argc, char **argv)
{
    static program p;
    AVFormatContext *input = NULL;
    AVCodecContext *decoder = NULL;
    int stream = -1, code = 1;

    if (argc != 4 && argc != 8) return fail("usage", "segment-video ENGINE VIDEO MASKS [X Y WIDTH HEIGHT]") + 3;
    for (int i = 4; i < argc; i++) p.region[i - 4] = (uint32_t)strtoul(argv[i], NULL, 10);
    if (open_video(argv[2], &input, &decoder, &stream) == 0) {
        if (gmsrt_open_cpu(argv[1], NULL, &p.runner) != GMSRT_OK ||
            gmsrt_get_info(p.runner, &p.info, sizeof p.info) != GMSRT_OK) {
            failed();
        } else {
            const size_t pixels = (size_t)p.info.height * p.info.width;

            for (int i = 0; i < 2; i++) {
                p.slots[i].input = malloc(pixels * 3);
                p.slots[i].levels = malloc(pixels);
            }
            p.out = fopen(argv[3], "wb");
            if (p.out == NULL || p.slots[1].levels == NULL || p.slots[0].input == NULL)
                fail(argv[3], "cannot be written");
            else if (run(&p, input, decoder, stream) == 0)
                code = fclose(p.out) == 0 ? 0 : -fail(argv[3], "cannot be written");
        }
    }
    gmsrt_close(p.runner); /* before the memory that it may still read */
    avcodec_free_context(&decoder);
    avformat_close_input(&input);
    return code;
}
