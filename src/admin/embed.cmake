# SPDX-License-Identifier: MIT
# Writes page.html as C: cmake -D PAGE=page.html -D OUT=page.c -P embed.cmake

# The text between two marks that are each there once.
function(between text before behind out)
  string(FIND "${text}" "${before}" first)
  string(FIND "${text}" "${before}" last REVERSE)
  if(first LESS 0 OR NOT first EQUAL last)
    message(FATAL_ERROR "${PAGE}: ${before} must be there once")
  endif()
  string(LENGTH "${before}" bytes)
  math(EXPR from "${first} + ${bytes}")
  string(SUBSTRING "${text}" ${from} -1 rest)
  string(FIND "${rest}" "${behind}" bytes)
  string(SUBSTRING "${rest}" 0 ${bytes} inside)
  set(${out} "${inside}" PARENT_SCOPE)
endfunction()

# SHA-256 in base64: three digits of hexadecimal are two of base64, and of 256 bits the last one is padding.
function(hash text out)
  set(alphabet ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/)
  string(SHA256 hex "${text}")
  string(APPEND hex 00)
  set(base64 "")
  foreach(at RANGE 0 63 3)
    string(SUBSTRING ${hex} ${at} 3 three)
    math(EXPR high "0x${three} >> 6")
    math(EXPR low "0x${three} & 63")
    string(SUBSTRING ${alphabet} ${high} 1 high)
    string(SUBSTRING ${alphabet} ${low} 1 low)
    string(APPEND base64 ${high}${low})
  endforeach()
  string(SUBSTRING ${base64} 0 43 base64)
  set(${out} ${base64}= PARENT_SCOPE)
endfunction()

file(READ "${PAGE}" text)
between("${text}" "<style>" "</style>" style)
between("${text}" "<script>" "</script>" script)
hash("${style}" style_hash)
hash("${script}" script_hash)
file(READ "${PAGE}" hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "((0x..,){24})" "\\1\n    " bytes "${bytes}")
file(WRITE "${OUT}" "#include \"page.h\"

const uint8_t page_html[] = {
    ${bytes}
};
const size_t page_html_bytes = sizeof page_html;
const char page_style_hash[] = \"${style_hash}\";
const char page_script_hash[] = \"${script_hash}\";
")
