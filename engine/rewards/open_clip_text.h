/* How open_clip's tokenizer reads a prompt before it cuts it into words. */
#ifndef DRAFT_REWARDS_OPEN_CLIP_TEXT_H
#define DRAFT_REWARDS_OPEN_CLIP_TEXT_H

/* What ftfy.fix_text (6.3) does to text that was decoded rightly: character references of HTML replaced, straight
 * quotes for curly ones, letters for Latin ligatures and digraphs, the ordinary form of full- and half-width
 * characters, control characters dropped, NFC; line ends stay, they are white space either way. Then html.unescape,
 * twice, as open_clip does. Not done: mending text that was decoded wrongly ("â€™"), and escape sequences of terminals.
 * malloc'd; NULL when memory is out. What is not UTF-8 stays as it is, for the tokenizer to refuse.
 */
char *draft_open_clip_text(const char *prompt);

#endif
