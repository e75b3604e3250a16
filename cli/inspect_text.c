/* SPDX-License-Identifier: MIT */
/* ckfast inspect for people: the default fits on one screen. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ckf_inspect.h"

#define TASKS_SHOWN 6
#define TARGETS_SHOWN 5
#define MAX_INDENT 8
#define NAME_BYTES 64
#define BASES_SHOWN 5
#define BASE_NAME_BYTES 256

static double ratio(uint64_t decoded_bytes, uint64_t stored_bytes)
{
	return stored_bytes ? (double)decoded_bytes / (double)stored_bytes : 0;
}

static double percent(uint64_t part, uint64_t all)
{
	return all ? 100.0 * (double)part / (double)all : 0;
}

static const char *target_name(const struct insp *insp, const struct ckf_target *t,
			       char buf[NAME_BYTES])
{
	if (t->kind == CKF_TARGET_SHMEM)
		return "";
	if (t->kind == CKF_TARGET_DEVICE && ckf_amd_is_target_id(t->id))
		return insp_amd_target_name(insp, t, buf, NAME_BYTES);
	return insp_task_name(insp, t->id, buf, NAME_BYTES);
}

/* What the column of page bytes says. */
static const char *pages_title(const struct insp *insp)
{
	return insp->img ? "in image" : "in dump";
}

static void print_more(uint64_t all, uint64_t shown, const char *where)
{
	if (all > shown)
		printf("    … and %" PRIu64 " more (%s)\n", all - shown, where);
}

/* Of a number for each kind of files: the sum over those in the pack. */
static uint64_t in_pack(const uint64_t *of_kind)
{
	return of_kind[CKF_FILE_PAGES] + of_kind[CKF_FILE_SIZED_PAGES] +
	       of_kind[CKF_FILE_HEADED_PAGES] + of_kind[CKF_FILE_CUT_PAGES];
}

static void print_head(const struct insp *insp)
{
	const struct ckf_index *idx;
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN], id[CKF_ID_HEX_BYTES], path[CLI_PATH_LEN];
	const char *name;

	cli_path(insp->path, path);
	if (!insp->img) {
		printf("%s: %s%s\n", path,
		       insp->dump->nr_tasks ? "plain CRIU dump" : "CRIU pre-dump",
		       insp->dump->has_parent ? ", incremental (has a parent dump)" : "");
		if (insp->incomplete.code)
			printf("  It cannot be restored: %s.\n", insp->incomplete.msg);
		return;
	}
	idx = insp->img->idx;
	printf("%s: fast image, format %u.%u, id %s\n", path, idx->version_major,
	       idx->version_minor, ckf_id_hex(idx->image_id, id));
	if (ckf_image_is_stale(insp->img))
		printf("  A newer dump was written into this directory: the image is of no use.\n");
	printf("  features   %s", idx->incompat ? "needed to read it:" : "none needed");
	for (unsigned int bit = 0; (name = insp_feature_name(bit)); bit++)
		if (idx->incompat & 1ull << bit)
			printf(" %s", name);
	printf("\n");
	printf("  pack       %s, extents of %u MiB: %" PRIu64 ", filled %.1f %%\n",
	       cli_bytes(idx->pack_bytes, a), idx->extent_bytes >> 20, insp->nr_extents,
	       percent(insp->stored_bytes, idx->pack_bytes));
	printf("  index      %s\n", cli_bytes(insp->idx_bytes, a));
	printf("  files      kept as they were: %" PRIu64 " (%s), in the pack: %" PRIu64
	       " (%s), links: %" PRIu64 "\n",
	       insp->nr_files[CKF_FILE_VERBATIM], cli_bytes(insp->file_bytes[CKF_FILE_VERBATIM], a),
	       in_pack(insp->nr_files), cli_bytes(in_pack(insp->file_bytes), b),
	       insp->nr_files[CKF_FILE_SYMLINK]);
}

static void print_bases(const struct insp *insp)
{
	const struct ckf_index *idx = insp->img->idx;
	uint64_t shown = idx->nr_bases < BASES_SHOWN ? idx->nr_bases : BASES_SHOWN;
	char path[BASE_NAME_BYTES], decoded[CLI_BYTES_LEN], stored[CLI_BYTES_LEN];
	char id[CKF_ID_HEX_BYTES];

	if (!shown)
		return;
	printf("\n%-29s %10s %11s %11s\n", "Bases", "chunks", "bytes", "stored");
	for (uint64_t i = 0; i < shown; i++) {
		const struct insp_base *b = &insp->bases[i];

		printf("  %-27s %10" PRIu64 " %11s %11s\n    id %s%s\n",
		       cli_escape(idx->bases[i].path, path, sizeof(path)), b->nr_chunks,
		       cli_bytes(b->decoded_bytes, decoded), cli_bytes(b->stored_bytes, stored),
		       ckf_id_hex(idx->bases[i].image_id, id),
		       !b->err.code		? ""
		       : b->err.code == -ESTALE ? "  missing: another image is there"
						: "  missing");
	}
	print_more(idx->nr_bases, shown, "--json has all");
}

/* Steps from the root, as far as they are shown. */
static int task_depth(const struct ckf_dump *dump, const struct ckf_task *task)
{
	int depth = 0;

	while (task && depth < MAX_INDENT) {
		const struct ckf_task *parent = NULL;

		for (uint64_t i = 0; i < dump->nr_tasks && !parent; i++)
			if (dump->tasks[i].pid == task->ppid && &dump->tasks[i] != task)
				parent = &dump->tasks[i];
		task = parent;
		depth++;
	}
	return depth ? depth - 1 : 0;
}

static void print_tasks(const struct insp *insp)
{
	char mapped[CLI_BYTES_LEN], pages[CLI_BYTES_LEN], name[NAME_BYTES], label[2 * NAME_BYTES];
	uint64_t shown = insp->nr_tasks < TASKS_SHOWN ? insp->nr_tasks : TASKS_SHOWN;

	printf("\n%-40s %7s %11s %11s\n", "Tasks", "threads", "mapped", pages_title(insp));
	for (uint64_t i = 0; i < shown; i++) {
		const struct insp_task *it = &insp->tasks[i];

		snprintf(label, sizeof(label), "%*s%" PRIu64 " %s",
			 2 + 2 * task_depth(insp->dump, it->task), "", it->pid,
			 insp_task_name(insp, it->pid, name, sizeof(name)));
		printf("%-40.40s %7u %11s %11s\n", label, it->task ? it->task->nr_threads : 0,
		       cli_bytes(it->all_mapped_bytes, mapped),
		       cli_bytes(it->all_page_bytes, pages));
	}
	print_more(insp->nr_tasks, shown, "--json has all");
}

static void print_memory(const struct insp *insp)
{
	char mapped[CLI_BYTES_LEN], pages[CLI_BYTES_LEN];

	printf("\n%-40s %7s %11s %11s\n", "Memory", "", "mapped", pages_title(insp));
	for (int mem = 0; mem < INSP_MEM_END; mem++)
		if (insp->mapped_bytes[mem] || insp->page_bytes[mem])
			printf("  %-38s %7s %11s %11s\n", insp_mem_name((enum insp_mem)mem), "",
			       cli_bytes(insp->mapped_bytes[mem], mapped),
			       insp->page_bytes[mem] ? cli_bytes(insp->page_bytes[mem], pages)
						     : "-");
	if (insp->nr_shmem)
		printf("  shared objects: %-22" PRIu64 " %7s %11s %11s\n", insp->nr_shmem, "", "",
		       cli_bytes(insp->shmem_bytes, pages));
	printf("  %-38s %7s %11s %11s\n", "all", "", "", cli_bytes(insp->all_page_bytes, pages));
	if (insp->parent_bytes)
		printf("  %-38s %7s %11s %11s\n",
		       insp->img ? "of these from the parent dump, now here"
				 : "of these in the parent dump",
		       "", "", cli_bytes(insp->parent_bytes, pages));
}

static void print_contents(const struct insp *insp)
{
	char decoded[CLI_BYTES_LEN], stored[CLI_BYTES_LEN];
	uint64_t all_stored = insp->stored_bytes + insp->base_bytes;

	printf("\n%-29s %10s %11s %11s %6s\n", "Contents", "chunks", "bytes", "stored", "ratio");
	printf("  %-27s %10s %11s %11s\n", "zero", "", cli_bytes(insp->sum.zero_bytes, decoded),
	       "0 B");
	printf("  %-27s %10s %11s %11s\n", "stored before", "", cli_bytes(insp->dup_bytes, decoded),
	       "0 B");
	for (uint32_t codec = CKF_CODEC_RAW; codec < CKF_CODEC_END; codec++) {
		const struct insp_codec *c = &insp->codecs[codec];

		if (c->nr_chunks)
			printf("  %-27s %10" PRIu64 " %11s %11s %6.2f\n", ckf_codec_name(codec),
			       c->nr_chunks, cli_bytes(c->decoded_bytes, decoded),
			       cli_bytes(c->stored_bytes, stored),
			       ratio(c->decoded_bytes, c->stored_bytes));
	}
	printf("  %-27s %10" PRIu64 " %11s %11s %6.2f\n", "all",
	       insp->img->idx->nr_chunks - insp->codecs[CKF_CODEC_ZERO].nr_chunks,
	       cli_bytes(insp->sum.fill_bytes, decoded), cli_bytes(all_stored, stored),
	       ratio(insp->sum.fill_bytes, all_stored));
}

static void print_targets(const struct insp *insp)
{
	const struct ckf_index *idx = insp->img->idx;
	uint64_t shown = idx->nr_targets < TARGETS_SHOWN ? idx->nr_targets : TARGETS_SHOWN;
	char fill[CLI_BYTES_LEN], huge[CLI_BYTES_LEN], name[NAME_BYTES], label[2 * NAME_BYTES];

	printf("\n%-29s %8s %7s %11s %11s %8s\n", "Plan", "ops", "lanes", "fills", "huge",
	       "balance");
	for (uint64_t i = 0; i < shown; i++) {
		const struct ckf_target *t = &idx->targets[i];
		const struct insp_target *it = &insp->targets[i];

		snprintf(label, sizeof(label), "  %s %" PRIu64 " %s", ckf_target_kind_name(t->kind),
			 t->id, target_name(insp, t, name));
		printf("%-29.29s %8" PRIu64 " %7u %11s %11s %8.2f\n", label, t->nr_ops, t->nr_lanes,
		       cli_bytes(it->fill_bytes, fill), cli_bytes(it->huge_bytes, huge),
		       insp_lane_balance(it, t->nr_lanes));
	}
	print_more(idx->nr_targets, shown, "--plan has all");
}

static void print_restore(const struct insp *insp)
{
	char read[CLI_BYTES_LEN], fill[CLI_BYTES_LEN], inherit[CLI_BYTES_LEN], zero[CLI_BYTES_LEN];
	const struct ckf_storage *s = insp->asked.bytes_per_s ? &insp->asked
							      : &insp->img->idx->storage;
	const struct ckf_storage slow = { .bytes_per_s = 1000000000 };
	const struct ckf_storage quick = { .bytes_per_s = 4000000000 };
	char profile[CLI_PROFILE_LEN];

	printf("\nA restore reads %s and fills at most %s\n"
	       "(%s of it zeros; %s more stay shared with a parent task).\n",
	       cli_bytes(insp->sum.read_bytes, read), cli_bytes(insp_restored_bytes(insp), fill),
	       cli_bytes(insp->sum.zero_bytes, zero), cli_bytes(insp->sum.inherit_bytes, inherit));
	if (s->bytes_per_s)
		printf("Estimated with the CPUs of this machine from %s: %.2f s.\n",
		       cli_profile(s, profile), insp_estimate_s(insp, s));
	else
		printf("Estimated with the CPUs of this machine: %.2f s at 1 GB/s, %.2f s at 4 "
		       "GB/s.\n",
		       insp_estimate_s(insp, &slow), insp_estimate_s(insp, &quick));
	printf("The index is whole. `ckfast verify` checks every byte.\n");
}

void insp_print_text(const struct insp *insp)
{
	print_head(insp);
	print_tasks(insp);
	print_memory(insp);
	insp_print_devices(insp);
	insp_print_amd(insp);
	if (!insp->img) {
		printf("\nZero and equal pages are not counted here: `ckfast convert` reads "
		       "them.\n");
		return;
	}
	print_contents(insp);
	print_bases(insp);
	print_targets(insp);
	print_restore(insp);
}

static void print_lanes(const struct ckf_index *idx, const struct ckf_target *t)
{
	char read[CLI_BYTES_LEN], fill[CLI_BYTES_LEN];

	for (uint32_t i = t->first_lane; i < t->first_lane + t->nr_lanes; i++) {
		const struct ckf_lane *l = &idx->lanes[i];
		const struct ckf_op *last = &idx->ops[l->first_op + l->nr_ops - 1];

		printf("  lane %6u  %016" PRIx64 "-%016" PRIx64 "  %6" PRIu64
		       " ops  fills %9s  reads %9s\n",
		       i, ckf_op_addr(&idx->ops[l->first_op]), ckf_op_end(last), l->nr_ops,
		       cli_bytes(l->fill_bytes, fill), cli_bytes(l->read_bytes, read));
	}
}

void insp_print_plan(const struct insp *insp)
{
	const struct ckf_index *idx = insp->img->idx;
	char name[NAME_BYTES], a[CLI_BYTES_LEN], b[CLI_BYTES_LEN], c[CLI_BYTES_LEN];
	uint64_t h = 0;

	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		const struct ckf_target *t = &idx->targets[i];
		const struct insp_target *it = &insp->targets[i];
		const char *target = target_name(insp, t, name);

		printf("target %" PRIu64 ": %s %" PRIu64 "%s%s\n", i, ckf_target_kind_name(t->kind),
		       t->id, *target ? " " : "", target);
		printf("  %" PRIu64 " ops, %u lanes, balance %.2f, zero %s, inherited %s, "
		       "direct %s",
		       t->nr_ops, t->nr_lanes, insp_lane_balance(it, t->nr_lanes),
		       cli_bytes(it->zero_bytes, a), cli_bytes(it->inherit_bytes, b),
		       cli_bytes(it->direct_bytes, c));
		if (t->parent)
			printf(", parent: target %u", t->parent - 1);
		putchar('\n');
		print_lanes(idx, t);
		for (; h < idx->nr_huge && idx->huge[h].target == i; h++)
			printf("  huge         %016" PRIx64 "  %u x 2 MiB\n", idx->huge[h].addr,
			       idx->huge[h].nr_huge);
	}
}

void insp_print_chunks(const struct insp *insp)
{
	const struct ckf_index *idx = insp->img->idx;

	printf("%10s %-5s %4s %14s %9s %6s  %s\n", "chunk", "codec", "base", "pack offset",
	       "stored", "pages", "checksum");
	for (uint64_t i = 0; i < idx->nr_chunks; i++) {
		const struct ckf_chunk *c = &idx->chunks[i];

		printf("%10" PRIu64 " %-5s %4u %14" PRIu64 " %9u %6u  %016" PRIx64 "\n", i,
		       ckf_codec_name(c->codec), c->base, c->pack_off, c->stored_bytes, c->nr_pages,
		       c->checksum);
	}
}
