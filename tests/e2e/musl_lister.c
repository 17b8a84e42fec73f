/* A program of an image whose C library is musl: `lister DIR` prints the names in a folder, `lister FROM TO` copies. */
#include <dirent.h>
#include <stdio.h>

static int fail(const char *path) {
    perror(path);
    return 1;
}

static int list(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) return fail(path);
    for (struct dirent *entry; (entry = readdir(folder));) puts(entry->d_name);
    return closedir(folder);
}

static int copy(const char *from, const char *to) {
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    if (!in || !out) return fail(in ? to : from);
    for (int byte; (byte = getc(in)) != EOF;) putc(byte, out);
    return fclose(out) ? fail(to) : fclose(in);
}

int main(int count, char **words) {
    return count == 2 ? list(words[1]) : count == 3 ? copy(words[1], words[2]) : 2;
}
