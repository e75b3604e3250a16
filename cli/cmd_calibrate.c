/* SPDX-License-Identifier: MIT */
/* ckfast calibrate: the speeds of this CPU, beside those that convert reckons with. */
#include <getopt.h>
#include <stdio.h>

#include "convert/ckf_model.h"
#include "ckf_cli.h"

static json_t *speeds_json(const struct ckf_speeds *s)
{
	json_t *obj = json_object();

	for (uint32_t c = CKF_CODEC_RAW; c < CKF_CODEC_END; c++)
		json_object_set_new(obj, ckf_codec_name(c), json_integer((json_int_t)s->decode[c]));
	json_object_set_new(obj, "copy", json_integer((json_int_t)s->copy));
	json_object_set_new(obj, "fill", json_integer((json_int_t)s->fill));
	return obj;
}

static void print_row(const char *name, uint64_t here, uint64_t model)
{
	printf("  %-8s %9.2f %11.2f\n", name, (double)here / 1e9, (double)model / 1e9);
}

static void print_speeds(const struct ckf_speeds *here)
{
	printf("Decoding with the checksum, on one core, in GB/s\n");
	printf("  %-8s %9s %11s\n", "codec", "this CPU", "the model");
	for (uint32_t c = CKF_CODEC_RAW; c < CKF_CODEC_END; c++)
		print_row(ckf_codec_name(c), here->decode[c], ckf_model_speeds.decode[c]);
	print_row("copy", here->copy, ckf_model_speeds.copy);
	print_row("fill", here->fill, ckf_model_speeds.fill);
	printf("raw: the checksum alone; lz4, zstd: of text; bf16: of weights;\n"
	       "copy: out of the page cache; fill: fresh memory\n");
}

static int run_calibrate(const struct cli_verb *verb, int argc, char **argv)
{
	bool json = false, help = false;
	const struct cli_opt opts[] = { { "json", .flag = &json }, { 0 } };
	struct ckf_error err = { 0 };
	struct ckf_speeds here;
	int rc;

	rc = cli_take_options(verb, argc, argv, opts, &help);
	if (rc)
		return rc;
	if (help)
		return cli_help(verb);
	if (argc != optind)
		return cli_usage(verb, "wants no arguments");
	rc = ckf_calibrate(&here, &err);
	if (rc)
		return cli_fail(verb, "this CPU", rc, &err);
	if (json)
		return cli_json_print(verb, json_pack("{si ss so so}", "version", CLI_JSON_VERSION,
						      "verb", verb->name, "decode_bytes_per_s",
						      speeds_json(&here), "model_bytes_per_s",
						      speeds_json(&ckf_model_speeds)));
	print_speeds(&here);
	return CKF_EXIT_OK;
}

const struct cli_verb cli_verb_calibrate = {
	.name = "calibrate",
	.args = "",
	.summary = "Measures how fast this CPU decodes.",
	.help = "  --json               the speeds as JSON, in bytes per second\n",
	.run = run_calibrate,
};
