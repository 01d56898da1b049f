/* How open_clip's tokenizer reads a prompt before it cuts it into words. */
#ifndef DRAFT_REWARDS_OPEN_CLIP_TEXT_H
#define DRAFT_REWARDS_OPEN_CLIP_TEXT_H

/* What ftfy.fix_text (6.3), which open_clip calls first, does to text that was decoded rightly: straight quotes for
 * curly ones, letters for Latin ligatures and digraphs, the ordinary form of full- and half-width characters, control
 * characters dropped; line ends stay, they are white space either way. Not done: HTML entities, and mending text that
 * was decoded wrongly ("â€™"). malloc'd; NULL when memory is out. Bytes that are not UTF-8 stay, for the tokenizer to
 * refuse.
 */
char *draft_open_clip_text(const char *prompt);

#endif
