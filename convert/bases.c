/* SPDX-License-Identifier: MIT */
/*
 * The chunks of other fast images, by checksum and length.
 *
 * Chunks are cut by content, so equal memory gives equal chunks in every image, wherever it lies,
 * and a table of whole chunks is enough. A base that itself has bases brings in their packs, but
 * only the chunks that it uses of them: what is named is always the pack that holds the bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loader/ckf_image.h"
#include "bases.h"
#include "encode.h"

static_assert(CKF_ENCODE_SCRATCH_BYTES >= 2 * CKF_CUT_MAX_PAGES * CKF_PAGE_BYTES,
	      "a chunk as it is stored, and decoded");

struct pack {
	struct ckf_base base; /* path: from the image being made, once that is known */
	char *real_path;      /* of the directory */
	char *path;
	int dir_fd;
	int fd;
};

struct ckf_bases {
	struct pack packs[CKF_MAX_BASES]; /* of the chunks with base 1, 2… */
	unsigned int nr_packs;
	struct ckf_chunk *chunks; /* by checksum, nr_pages, base, pack_off */
	uint64_t nr_chunks;
	uint32_t *numbers;
};

static char *join_path(const char *dir, const char *name)
{
	size_t bytes = strlen(dir) + strlen(name) + 2;
	char *joined = malloc(bytes);

	if (joined)
		snprintf(joined, bytes, "%s/%s", dir, name);
	return joined;
}

/* Without links and all that; malloc()ed. NULL with errno. */
static char *real_path(const char *path)
{
	char *real = malloc(PATH_MAX);

	if (!real || realpath(path, real))
		return real;
	free(real);
	return NULL;
}

static int find_pack(const struct ckf_bases *b, const uint8_t id[CKF_ID_BYTES])
{
	for (unsigned int i = 0; i < b->nr_packs; i++) {
		if (!memcmp(b->packs[i].base.image_id, id, CKF_ID_BYTES))
			return (int)i;
	}
	return -1;
}

/* The pack n of an image in dir: the number of the pack here, from 1, or -errno. */
static int add_pack(struct ckf_bases *b, const struct ckf_image *img, const char *dir,
		    unsigned int n, struct ckf_error *err)
{
	const struct ckf_index *idx = img->idx;
	const struct ckf_base *base = n ? &idx->bases[n - 1] : NULL;
	const uint8_t *id = base ? base->image_id : idx->image_id;
	int at = find_pack(b, id);
	struct pack *p;
	char *joined;

	if (at >= 0)
		return at + 1;
	if (b->nr_packs == CKF_MAX_BASES)
		return ckf_error_set(err, -E2BIG, "more than %d bases", CKF_MAX_BASES);
	p = &b->packs[b->nr_packs];
	*p = (struct pack){ .dir_fd = -1, .fd = -1 };
	b->nr_packs++;
	p->base.pack_bytes = base ? base->pack_bytes : idx->pack_bytes;
	p->base.extent_bytes = base ? base->extent_bytes : idx->extent_bytes;
	memcpy(p->base.image_id, id, CKF_ID_BYTES);
	joined = base ? join_path(dir, base->path) : NULL;
	if (!base || joined)
		p->real_path = real_path(base ? joined : dir);
	free(joined);
	if (p->real_path)
		p->dir_fd = open(p->real_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->dir_fd < 0)
		return ckf_error_set(err, -errno, "cannot open base %s: %s",
				     base ? base->path : dir, strerror(errno));
	p->fd = ckf_image_open_pack_of(img, img->dir_fd, n, 0, err);
	return p->fd < 0 ? p->fd : (int)b->nr_packs;
}

static int add_chunks(struct ckf_bases *b, const struct ckf_image *img, const char *dir,
		      struct ckf_error *err)
{
	const struct ckf_index *idx = img->idx;
	uint8_t number[CKF_MAX_BASES + 1];
	void *p;

	for (unsigned int n = 0; n <= idx->nr_bases; n++) {
		int ret = add_pack(b, img, dir, n, err);

		if (ret < 0)
			return ret;
		number[n] = (uint8_t)ret;
	}
	p = realloc(b->chunks, (size_t)(b->nr_chunks + idx->nr_chunks + 1) * sizeof(*b->chunks));
	if (!p)
		return ckf_error_set(err, -ENOMEM, "no memory for the chunks of the bases");
	b->chunks = p;
	for (uint64_t i = 0; i < idx->nr_chunks; i++) {
		if (idx->chunks[i].codec == CKF_CODEC_ZERO)
			continue;
		b->chunks[b->nr_chunks] = idx->chunks[i];
		b->chunks[b->nr_chunks++].base = number[idx->chunks[i].base];
	}
	return 0;
}

static int add_image(struct ckf_bases *b, const char *dir, struct ckf_error *err)
{
	struct ckf_image *img = NULL;
	struct ckf_error inner = { 0 };
	int fd, ret;

	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return ckf_error_set(err, -errno, "cannot open base %s: %s", dir, strerror(errno));
	ret = ckf_image_open(fd, &img, &inner);
	close(fd);
	if (!ret)
		ret = add_chunks(b, img, dir, &inner);
	ckf_image_close(img);
	return ret ? ckf_error_set(err, ret, "base %s: %s", dir, inner.msg) : 0;
}

static int compare_key(const struct ckf_chunk *x, const struct ckf_chunk *y)
{
	if (x->checksum != y->checksum)
		return x->checksum < y->checksum ? -1 : 1;
	return (x->nr_pages > y->nr_pages) - (x->nr_pages < y->nr_pages);
}

static int compare_chunk(const void *a, const void *b)
{
	const struct ckf_chunk *x = a, *y = b;
	int c = compare_key(x, y);

	if (!c)
		c = (x->base > y->base) - (x->base < y->base);
	return c ? c : (x->pack_off > y->pack_off) - (x->pack_off < y->pack_off);
}

/* Sorts, and leaves one of those that two images share. */
static int sort_chunks(struct ckf_bases *b, struct ckf_error *err)
{
	uint64_t nr = 0;

	if (b->nr_chunks)
		qsort(b->chunks, (size_t)b->nr_chunks, sizeof(*b->chunks), compare_chunk);
	for (uint64_t i = 0; i < b->nr_chunks; i++) {
		if (!i || compare_chunk(&b->chunks[i - 1], &b->chunks[i]))
			b->chunks[nr++] = b->chunks[i];
	}
	b->nr_chunks = nr;
	b->numbers = malloc((size_t)(nr + 1) * sizeof(*b->numbers));
	if (!b->numbers)
		return ckf_error_set(err, -ENOMEM, "no memory for the chunks of the bases");
	for (uint64_t i = 0; i < nr; i++)
		b->numbers[i] = CKF_BASES_NONE;
	return 0;
}

int ckf_bases_open(const char *const *dirs, size_t nr_dirs, struct ckf_bases **out,
		   struct ckf_error *err)
{
	struct ckf_bases *b = calloc(1, sizeof(*b));
	int ret = 0;

	if (!b)
		return ckf_error_set(err, -ENOMEM, "no memory for the bases");
	for (size_t i = 0; i < nr_dirs && !ret; i++)
		ret = add_image(b, dirs[i], err);
	if (!ret)
		ret = sort_chunks(b, err);
	if (ret)
		ckf_bases_free(b);
	else
		*out = b;
	return ret;
}

void ckf_bases_free(struct ckf_bases *b)
{
	if (!b)
		return;
	for (unsigned int i = 0; i < b->nr_packs; i++) {
		free(b->packs[i].real_path);
		free(b->packs[i].path);
		if (b->packs[i].dir_fd >= 0)
			close(b->packs[i].dir_fd);
		if (b->packs[i].fd >= 0)
			close(b->packs[i].fd);
	}
	free(b->chunks);
	free(b->numbers);
	free(b);
}

int ckf_bases_check_outside(const struct ckf_bases *b, const struct ckf_output *out,
			    struct ckf_error *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < b->nr_packs && !ret; i++)
		ret = ckf_output_check_outside(out, b->packs[i].dir_fd, err);
	return ret;
}

/* 1 when the chunk at a position is these bytes, 0 when not, -errno. */
static int compare_bytes(const struct ckf_bases *b, uint64_t at, const void *data,
			 struct ckf_worker *w, struct ckf_error *err)
{
	struct ckf_chunk own = b->chunks[at];
	struct ckf_index idx = { .chunks = &own, .nr_chunks = 1 };
	const struct ckf_image img = { .idx = &idx, .dir_fd = -1 };
	const struct ckf_chunk *c = &b->chunks[at];
	const struct pack *p = &b->packs[c->base - 1];
	size_t bytes = (size_t)ckf_pages_to_bytes(c->nr_pages);
	int ret;

	/* As the pack itself sees it. */
	own.base = 0;
	ret = ckf_image_read_chunk(&img, p->fd, 0, w->codec, w->scratch + bytes, w->scratch, NULL);
	if (ret)
		return ckf_error_set(err, ret,
				     "base %s: the chunk at %llu of its " CKF_PACK_NAME
				     " cannot be read: %s",
				     p->real_path, (unsigned long long)c->pack_off,
				     ret == -EBADMSG ? "corrupt" : strerror(-ret));
	return !memcmp(w->scratch, data, bytes);
}

int64_t ckf_bases_find(const struct ckf_bases *b, const struct ckf_chunk *want, const void *data,
		       struct ckf_worker *w, struct ckf_error *err)
{
	uint64_t lo = 0, hi = b->nr_chunks;
	int ret;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (compare_key(&b->chunks[mid], want) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < b->nr_chunks && !compare_key(&b->chunks[lo], want); lo++) {
		ret = compare_bytes(b, lo, data, w, err);
		if (ret)
			return ret < 0 ? ret : (int64_t)lo;
	}
	return -ENOENT;
}

const struct ckf_chunk *ckf_bases_chunk(const struct ckf_bases *b, uint64_t at)
{
	return &b->chunks[at];
}

uint32_t *ckf_bases_number(const struct ckf_bases *b, uint64_t at)
{
	return &b->numbers[at];
}

/* The real path that the directory at path will have. */
static char *future_path(const char *path)
{
	char *copy = strdup(path), *parent = NULL, *slash, *out = NULL;
	size_t len = copy ? strlen(copy) : 0;

	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = copy ? strrchr(copy, '/') : NULL;
	if (slash)
		*slash = '\0';
	if (copy)
		parent = real_path(!slash ? "." : slash == copy ? "/" : copy);
	if (parent)
		out = join_path(parent, slash ? slash + 1 : copy);
	free(parent);
	free(copy);
	return out;
}

/* From one directory to another: up to where the ways part, and down. Both paths are real. */
static char *relative_path(const char *from, const char *to)
{
	size_t same = 0, ups = 0, len;
	char *out;

	for (size_t i = 0; from[i] == to[i] && from[i]; i++) {
		if (from[i] == '/')
			same = i;
	}
	for (size_t i = same; from[i]; i++)
		ups += from[i] == '/' && from[i + 1] && from[i + 1] != '/';
	len = 3 * ups;
	out = malloc(len + strlen(to + same) + 1);
	if (!out)
		return NULL;
	for (size_t i = 0; i < ups; i++)
		memcpy(out + 3 * i, "../", 3);
	strcpy(out + len, to + same + 1);
	return out;
}

static int set_path(struct pack *p, const char *fast, struct ckf_error *err)
{
	p->path = relative_path(fast, p->real_path);
	if (!p->path)
		return ckf_error_set(err, -ENOMEM, "no memory for a path");
	if (!ckf_base_path_ok(p->path, strlen(p->path)))
		return ckf_error_set(err, -EINVAL, "base %s: an image cannot hold that path",
				     p->real_path);
	p->base.path = p->path;
	return 0;
}

int ckf_bases_list(struct ckf_bases *b, struct ckf_index *idx, const char *fast,
		   struct ckf_error *err)
{
	char *from = future_path(fast);
	uint8_t last = 0;
	int ret = 0;

	idx->bases = calloc(CKF_MAX_BASES, sizeof(*idx->bases));
	if (!idx->bases || !from)
		ret = ckf_error_set(err, -ENOMEM, "no memory for the bases");
	for (uint64_t i = 0; i < idx->nr_chunks && !ret; i++) {
		struct ckf_chunk *c = &idx->chunks[i];

		if (c->base > last) {
			last = c->base;
			ret = set_path(&b->packs[last - 1], from, err);
			idx->bases[idx->nr_bases++] = b->packs[last - 1].base;
		}
		if (c->base)
			c->base = (uint8_t)idx->nr_bases;
	}
	free(from);
	return ret;
}
